"""What an exercise asks to do without ("without torch.linalg"), looked for in the source that was written.

Names are followed through imports and plain assignments: `from torch import linalg as L; d = L.det` uses
torch.linalg.det. Code that cannot be read this way (exec, computed names) breaks no rule; `doubts` lists it,
for a person to look at.
"""

import ast

USUAL = {"np": "numpy", "torch": "torch", "nn": "torch.nn", "F": "torch.nn.functional", "sp": "scipy"}
DYNAMIC = {"exec", "eval", "compile", "__import__", "globals", "locals", "vars"}
HIDING = ("sys.modules", "ctypes", "importlib", "builtins", "gc", "inspect.currentframe", "sys._getframe")


def breach(source: str, without: tuple[str, ...], above: str = "") -> tuple[int, str, str] | None:
    """The first use of what is forbidden: line, its text, and its full name; None where there is none.

    without: modules or functions, "torch.linalg" or "numpy.linalg.det"; ".det" is any method of that name.
    above: the cells before, for their imports.
    """
    tree = _tree(source)
    names = _names(tree, _names(_tree(above), USUAL))
    for node in sorted(filter(lambda n: hasattr(n, "lineno"), ast.walk(tree)), key=lambda n: n.lineno):
        full = next((f for f in _meant(node, names) if _is_under(f, without)), None)
        if full:
            return node.lineno, source.splitlines()[node.lineno - 1].strip(), full.lstrip(".")
    return None


def in_words(without: tuple[str, ...]) -> str:
    """ "torch.linalg, torch.det and inverse": a method is left out where a function has its name."""
    names = [
        name.lstrip(".")
        for i, name in enumerate(without)
        if not (name.startswith(".") and any(other.endswith(name) for other in without[:i]))
    ]
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def doubts(source: str) -> list[str]:
    """The constructs by which a use could be hidden, each as it is called."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ["a magic, or what is no Python"] if source.strip() else []
    names = _names(tree, USUAL)
    found = [_doubt(node, names) for node in ast.walk(tree)]
    return sorted({doubt for doubt in found if doubt})


def _tree(source):
    try:
        return ast.parse(source)
    except SyntaxError:  # it defines nothing, so there is no answer that could break a rule
        return ast.Module([], [])


def _doubt(node, names):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in DYNAMIC:
            return node.func.id
        if node.func.id in ("getattr", "setattr") and not _is_text(node.args[1:2]):
            return f"{node.func.id} with a computed name"
    if isinstance(node, (ast.Attribute, ast.Name, ast.Import, ast.ImportFrom)):
        return next(
            (hiding for f in _meant(node, names) for hiding in HIDING if _is_under(f, (hiding,))), None
        )
    return None


def _is_text(nodes):
    return bool(nodes) and isinstance(nodes[0], ast.Constant)


def _names(tree, known):
    """What the names of the source stand for, as dotted names; assignments in the order of their lines."""
    names = dict(known)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                (a.asname or a.name.partition(".")[0]): a.name if a.asname else a.name.partition(".")[0]
                for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    assigned = [n for n in ast.walk(tree) if isinstance(n, ast.Assign)]
    for node in sorted(assigned, key=lambda n: n.lineno):
        full = _dotted(node.value, names)
        names |= {target.id: full for target in node.targets if isinstance(target, ast.Name) and full}
    return names


def _dotted(node, names):
    """ "torch.linalg.det" for L.det where L is torch.linalg; None for what is no name of a module's."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value, names)
        return f"{before}.{node.attr}" if before else None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
        before = _dotted(node.args[0], names) if len(node.args) > 1 and _is_text(node.args[1:2]) else None
        return f"{before}.{node.args[1].value}" if before else None
    return None


def _meant(node, names):
    """The full names that a node may stand for."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    full = _dotted(node, names)
    if full is None and isinstance(node, ast.Attribute):
        return [f".{node.attr}"]
    return [full] if full else []


def _is_under(full, without):
    return any(full == name or full.startswith(f"{name}.") for name in without)
