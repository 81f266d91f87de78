// Draws an encoded scene (flowkit/lab/scene.py) on a 2-D canvas. Lengths are CSS pixels.

const FONT = 12;
const TITLE = `600 ${FONT + 1}px sans-serif`;
const GAP = 18;
const DASHES = { solid: [], dashed: [8, 5], dotted: [2, 4] };
const FAR = 1e5; // canvases misdraw coordinates much beyond this
const TEXT_COLOUR = "#1A1A1A"; // colours.BLACK

function numbersOf(buffers, array) {
  const view = buffers[array.buffer];
  const bytes = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
  return new Float32Array(bytes);
}

function bytesOf(buffers, array) {
  const view = buffers[array.buffer];
  return new Uint8ClampedArray(view.buffer, view.byteOffset, view.byteLength);
}

function ticksOf([low, high], pixels, spacing) {
  const wanted = Math.max(3, Math.floor(pixels / spacing));
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((m) => m * power >= rough) * power;
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) ticks.push(k * step);
  const powers = Math.max(Math.abs(low), Math.abs(high)) >= 1e5 || step < 1e-4;
  return ticks.map((t) => ({ at: t, words: Math.abs(t) < step / 2 ? "0" : written(t, digits, powers) }));
}

function written(t, digits, powers) {
  const words = powers ? String(Number(t.toPrecision(6)).toExponential()).replace("e+", "e") : t.toFixed(digits);
  return words.replaceAll("-", "\u2212");
}

function legendOf(pen, panel, width) {
  const entries = panel.layers.filter((layer) => layer.label);
  const rows = [];
  let x = Infinity;
  for (const layer of entries) {
    const length = 30 + pen.measureText(layer.label).width;
    if (x + length > width) {
      rows.push([]);
      x = 0;
    }
    rows.at(-1).push({ layer, x });
    x += length + 14;
  }
  return rows;
}

// The words of a title, in lines that fit this width.
function titleOf(pen, panel, width) {
  pen.font = TITLE;
  const lines = [];
  for (const word of panel.title ? panel.title.split(" ") : []) {
    const longer = `${lines.at(-1)} ${word}`;
    if (lines.length && pen.measureText(longer).width <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

// Where each panel and its plotting area lie, for a canvas of this width.
function layout(pen, header, width) {
  const count = header.panels.length;
  const columns = Math.max(1, Math.min(count, Math.floor((width + GAP) / (200 + GAP))));
  const share = Math.min((width - GAP * (columns - 1)) / columns, columns === 1 ? 640 : Infinity);
  const panels = header.panels.map((panel) => {
    pen.font = `${FONT}px sans-serif`;
    const ticks = panel.frame ? ticksOf(panel.y, 200, 40) : [];
    const widest = Math.max(0, ...ticks.map((tick) => pen.measureText(tick.words).width));
    const left = panel.frame ? widest + 10 + (panel.ylabel ? FONT + 8 : 0) : 2;
    const last = panel.frame ? ticksOf(panel.x, share, 55).at(-1).words : "";
    const right = panel.frame ? Math.max(12, pen.measureText(last).width / 2 + 3) : 2;
    const legend = legendOf(pen, panel, share - left - right);
    const title = titleOf(pen, panel, share - Math.abs(left - right));
    const top = 8 + (title.length && 5 + title.length * (FONT + 5)) + legend.length * (FONT + 6);
    const bottom = panel.frame ? FONT + 10 + (panel.xlabel ? FONT + 8 : 0) : 2;
    const room = share - left - right;
    const ratio = panel.equal ? (panel.y[1] - panel.y[0]) / (panel.x[1] - panel.x[0]) : 0.55;
    const height = Math.max(panel.equal ? 40 : 150, Math.min(room * ratio, panel.equal ? 380 : 300));
    const plotWidth = panel.equal ? Math.min(room, height / ratio) : room;
    return { left: left + (room - plotWidth) / 2, top, bottom, width: plotWidth, height, legend, title, equal: panel.equal };
  });
  let y = 0;
  for (let first = 0; first < count; first += columns) {
    const row = panels.slice(first, first + columns);
    const top = Math.max(...row.map((box) => box.top));
    const tallest = Math.max(...row.map((box) => box.height));
    const below = tallest + Math.max(...row.map((box) => box.bottom));
    row.forEach((box, k) => {
      if (!box.equal) box.height = tallest;
      box.start = k * (share + GAP);
      box.x = box.start + box.left;
      box.y = y + top;
    });
    y += top + below + (first + columns < count ? GAP : 0);
  }
  return { panels, height: Math.ceil(y) };
}

function paint(canvas, { header, buffers }, width) {
  const pen = canvas.getContext("2d");
  const plan = layout(pen, header, width);
  const ratio = window.devicePixelRatio || 1;
  const size = [Math.round(width * ratio), Math.round(plan.height * ratio)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) {
    [canvas.width, canvas.height] = size;
    canvas.style.height = `${plan.height}px`;
  }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, plan.height);
  const ink = getComputedStyle(canvas).color;
  const dark = ink.match(/\d+/g).slice(0, 3).every((channel) => channel > 127);
  header.panels.forEach((panel, k) => paintPanel(pen, panel, plan.panels[k], buffers, ink, dark));
}

function paintPanel(pen, panel, box, buffers, ink, dark) {
  const clamp = (v) => Math.max(-FAR, Math.min(FAR, v));
  const map = {
    x: (v) => clamp(box.x + ((v - panel.x[0]) / (panel.x[1] - panel.x[0])) * box.width),
    y: (v) => clamp(box.y + box.height - ((v - panel.y[0]) / (panel.y[1] - panel.y[0])) * box.height),
    box,
    colour: (c) => (c === TEXT_COLOUR ? ink : dark ? `color-mix(in srgb, ${c} 75%, white)` : c),
    ink,
  };
  pen.save();
  pen.beginPath();
  pen.rect(box.x, box.y, box.width, box.height);
  pen.clip();
  for (const layer of panel.layers) {
    pen.save();
    pen.globalAlpha = layer.alpha ?? 1;
    pen.fillStyle = pen.strokeStyle = map.colour(layer.colour ?? ink);
    pen.lineJoin = layer.width > 1.5 ? "round" : "bevel";
    LAYERS[layer.kind](pen, layer, buffers, map);
    pen.restore();
  }
  pen.restore();
  paintWords(pen, panel, box, map);
}

function paintWords(pen, panel, box, map) {
  pen.font = `${FONT}px sans-serif`;
  pen.fillStyle = pen.strokeStyle = map.ink;
  pen.lineWidth = 1;
  pen.setLineDash([]);
  const middle = box.x + box.width / 2;
  const bottom = box.y + box.height;
  if (panel.frame) {
    pen.globalAlpha = 0.7;
    pen.strokeRect(box.x - 0.5, box.y - 0.5, box.width + 1, box.height + 1);
    pen.globalAlpha = 1;
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (const tick of ticksOf(panel.x, box.width, 55)) {
      pen.fillRect(Math.round(map.x(tick.at)) - 0.5, bottom, 1, 4);
      pen.fillText(tick.words, map.x(tick.at), bottom + 7);
    }
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const tick of ticksOf(panel.y, box.height, 40)) {
      pen.fillRect(box.x - 4, Math.round(map.y(tick.at)) - 0.5, 4, 1);
      pen.fillText(tick.words, box.x - 7, map.y(tick.at));
    }
    pen.textAlign = "center";
    pen.textBaseline = "bottom";
    pen.fillText(panel.xlabel, middle, bottom + 2 * FONT + 18);
    pen.save();
    pen.translate(box.x - box.left + (box.left > FONT ? FONT + 2 : 0), box.y + box.height / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText(panel.ylabel, 0, 0);
    pen.restore();
  }
  const legendTop = box.y - 4 - box.legend.length * (FONT + 6);
  box.legend.forEach((row, r) => {
    for (const entry of row) paintEntry(pen, entry, box.x + entry.x, legendTop + (r + 0.5) * (FONT + 6), map);
  });
  pen.fillStyle = map.ink;
  pen.textAlign = "center";
  pen.textBaseline = "bottom";
  pen.font = TITLE;
  box.title.forEach((line, k) => {
    pen.fillText(line, middle, legendTop - 4 - (box.title.length - 1 - k) * (FONT + 5));
  });
}

function paintEntry(pen, { layer }, x, y, map) {
  pen.save();
  pen.fillStyle = pen.strokeStyle = map.colour(layer.colour);
  if (layer.kind === "points") {
    mark(pen, layer.marker, x + 12, y, 3.5);
  } else if (layer.kind === "curve" || layer.kind === "arrow") {
    pen.lineWidth = 2;
    pen.setLineDash(DASHES[layer.dash ?? "solid"]);
    pen.beginPath();
    pen.moveTo(x, y);
    pen.lineTo(x + 24, y);
    pen.stroke();
  } else {
    fill(pen, layer, () => pen.rect(x + 2, y - 5, 20, 10));
    pen.strokeRect(x + 2, y - 5, 20, 10);
  }
  pen.restore();
  pen.fillStyle = map.ink;
  pen.textAlign = "left";
  pen.textBaseline = "middle";
  pen.fillText(layer.label, x + 29, y);
}

function fill(pen, layer, outline) {
  pen.beginPath();
  outline();
  pen.globalAlpha = layer.alpha;
  pen.fill();
  pen.globalAlpha = 1;
  if (layer.hatch) {
    pen.fillStyle = hatching(pen, pen.strokeStyle);
    pen.fill();
    pen.fillStyle = pen.strokeStyle;
  }
}

function hatching(pen, colour) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const brush = tile.getContext("2d");
  brush.strokeStyle = colour;
  for (const shift of [-8, 0, 8]) {
    brush.moveTo(shift, 8);
    brush.lineTo(shift + 8, 0);
  }
  brush.stroke();
  return pen.createPattern(tile, "repeat");
}

function mark(pen, marker, x, y, r) {
  pen.beginPath();
  if (marker === "circle") pen.arc(x, y, r, 0, 2 * Math.PI);
  else if (marker === "square") pen.rect(x - r, y - r, 2 * r, 2 * r);
  else if (marker === "triangle") {
    pen.moveTo(x, y - r);
    pen.lineTo(x + r, y + r);
    pen.lineTo(x - r, y + r);
  } else {
    pen.moveTo(x - r, y - r);
    pen.lineTo(x + r, y + r);
    pen.moveTo(x - r, y + r);
    pen.lineTo(x + r, y - r);
    pen.lineWidth = 1.5;
    pen.stroke();
    return;
  }
  pen.fill();
}

// Where words begin that belong at x: those whose place is in the panel are moved rather than cut.
function withinPanel(pen, { words, align }, { box }, x) {
  const width = pen.measureText(words).width;
  const end = box.x + box.width;
  if (x < box.x || x > end || width > box.width) return x;
  const before = { left: 0, center: width / 2, right: width }[align];
  return Math.min(Math.max(x, box.x + before), end - width + before);
}

const LAYERS = {
  curve(pen, layer, buffers, map) {
    const path = numbersOf(buffers, layer.paths);
    pen.lineWidth = layer.width;
    pen.setLineDash(DASHES[layer.dash]);
    pen.beginPath();
    for (let i = 0; i < path.length; i += 2) {
      if (Number.isNaN(path[i])) {
        pen.stroke(); // each line by itself: one path with many crossings is slower
        pen.beginPath();
      } else pen.lineTo(map.x(path[i]), map.y(path[i + 1]));
    }
    pen.stroke();
  },
  polygon(pen, layer, buffers, map) {
    const ring = numbersOf(buffers, layer.ring);
    fill(pen, layer, () => {
      for (let i = 0; i < ring.length; i += 2) pen.lineTo(map.x(ring[i]), map.y(ring[i + 1]));
      pen.closePath();
    });
    pen.lineWidth = layer.width;
    if (layer.width) pen.stroke();
  },
  points(pen, layer, buffers, map) {
    const at = numbersOf(buffers, layer.at);
    const colours = layer.rgba && bytesOf(buffers, layer.rgba);
    for (let i = 0; i < at.length; i += 2) {
      if (colours) {
        const [r, g, b, a] = colours.subarray(2 * i, 2 * i + 4);
        pen.fillStyle = pen.strokeStyle = `rgba(${r}, ${g}, ${b}, ${a / 255})`;
      }
      mark(pen, layer.marker, map.x(at[i]), map.y(at[i + 1]), layer.size / 2);
    }
  },
  image(pen, layer, buffers, map) {
    const [rows, columns] = layer.rgba.shape;
    const pixels = document.createElement("canvas");
    [pixels.width, pixels.height] = [columns, rows];
    pixels.getContext("2d").putImageData(new ImageData(bytesOf(buffers, layer.rgba), columns, rows), 0, 0);
    pen.imageSmoothingEnabled = layer.smooth;
    const [x0, y0] = [map.x(layer.x[0]), map.y(layer.y[1])];
    pen.drawImage(pixels, x0, y0, map.x(layer.x[1]) - x0, map.y(layer.y[0]) - y0);
  },
  bars(pen, layer, buffers, map) {
    const boxes = numbersOf(buffers, layer.boxes);
    pen.lineWidth = 1;
    for (let i = 0; i < boxes.length; i += 4) {
      const [x0, x1] = [map.x(boxes[i]), map.x(boxes[i + 1])];
      const [y0, y1] = [map.y(boxes[i + 2]), map.y(boxes[i + 3])];
      fill(pen, layer, () => pen.rect(x0, y0, x1 - x0, y1 - y0));
      pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
  },
  text(pen, layer, buffers, map) {
    const at = numbersOf(buffers, layer.at);
    pen.font = `${layer.size}px sans-serif`;
    pen.textAlign = layer.align;
    pen.textBaseline = "middle";
    if (at.length) pen.fillText(layer.words, withinPanel(pen, layer, map, map.x(at[0])), map.y(at[1]));
  },
  arrow(pen, layer, buffers, map) {
    const ends = numbersOf(buffers, layer.ends);
    pen.lineWidth = layer.width;
    for (let i = 0; i < ends.length; i += 4) {
      const [x0, y0, x1, y1] = [map.x(ends[i]), map.y(ends[i + 1]), map.x(ends[i + 2]), map.y(ends[i + 3])];
      const length = Math.hypot(x1 - x0, y1 - y0);
      if (length < 0.5) continue;
      const head = Math.min(4 + 3 * layer.width, length);
      const [dx, dy] = [(head * (x1 - x0)) / length, (head * (y1 - y0)) / length];
      pen.beginPath();
      pen.moveTo(x0, y0);
      pen.lineTo(x1 - dx / 2, y1 - dy / 2);
      pen.stroke();
      pen.beginPath();
      pen.moveTo(x1, y1);
      pen.lineTo(x1 - dx + 0.45 * dy, y1 - dy - 0.45 * dx);
      pen.lineTo(x1 - dx - 0.45 * dy, y1 - dy + 0.45 * dx);
      pen.fill();
    }
  },
};

