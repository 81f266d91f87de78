// JupyterLab's command mode takes arrow keys and letters for itself ("d d" deletes the cell), also from a
// slider that has the focus. We keep what a control needs, and let Shift+Enter and the like through.
function keepKeys(node) {
  node.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey || event.altKey || event.key === "Enter")) event.stopPropagation();
  });
}

