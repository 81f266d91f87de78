"""What a cell of Python defines, uses, imports and calls, read from its source without running it."""

import ast
import builtins
import re
import symtable
from collections.abc import Collection, Iterator
from functools import cache


@cache
def tree(source: str) -> ast.Module:
    """The syntax tree, with IPython's magic and shell lines left out. Raises SyntaxError."""
    return ast.parse(_plain(source))


def error(source: str) -> str:
    """What is wrong with the syntax of a cell; "" for nothing."""
    try:
        tree(source)
    except SyntaxError as fault:
        return f"{fault.msg}, line {fault.lineno} of the cell"
    return ""


def bound_names(source: str) -> set[str]:
    """The names that the cell defines at its top level."""
    top = symtable.symtable(_plain(source), "cell", "exec")
    return {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}


def free_names(source: str) -> set[str]:
    """The global names that the cell uses without defining them, builtins aside."""
    top = symtable.symtable(_plain(source), "cell", "exec")
    return _global_names(top) - bound_names(source) - set(dir(builtins))


def _global_names(table: symtable.SymbolTable) -> set[str]:
    at_top = table.get_type() == "module"
    names = {s.get_name() for s in table.get_symbols() if s.is_referenced() and (at_top or s.is_global())}
    return names.union(*(_global_names(child) for child in table.get_children()))


def imported_packages(source: str) -> set[str]:
    """The top-level packages that the cell imports, anywhere in it."""
    return {module.partition(".")[0] for module, _ in _imports(source)}


def modules_of(package: str, source: str) -> set[str]:
    """What the cell imports or reaches right below a package: package.NAME, from package import NAME."""
    names = {name for module, name in _imports(source) if module == package and name}
    names |= {module.split(".")[1] for module, _ in _imports(source) if module.startswith(f"{package}.")}
    attributes = (node for node in _walk(source) if isinstance(node, ast.Attribute))
    return names | {node.attr for node in attributes if dotted(node) == f"{package}.{node.attr}"}


def calls(source: str, inside_functions: bool = True) -> list[tuple[str, bool, dict]]:
    """The dotted name of each call, whether it has arguments, and its keywords (constants by value)."""
    return [
        (dotted(node.func), bool(node.args or node.keywords), _keywords(node))
        for node in _walk(source, inside_functions)
        if isinstance(node, ast.Call)
    ]


def calls_of(source: str, module: str) -> list[tuple[str, object]]:
    """The calls module.NAME(first, ...): NAME, and first where it is a constant."""
    nodes = [node for node in _walk(source) if isinstance(node, ast.Call)]
    found = [node for node in nodes if dotted(node.func).startswith(f"{module}.")]
    return [
        (dotted(node.func)[len(module) + 1 :], _constant(node.args[0]) if node.args else None)
        for node in found
    ]


def ends_in_call_of(source: str, module: str) -> bool:
    """Whether the last statement of the cell is a call of something in a module."""
    body = tree(source).body
    last = body[-1].value if body and isinstance(body[-1], ast.Expr) else None
    return isinstance(last, ast.Call) and dotted(last.func).startswith(f"{module}.")


def unseen_calls(source: str, names: Collection[str]) -> list[str]:
    """The calls of these functions whose value stands by itself above the cell's last line: none is shown."""
    values = [node.value for node in tree(source).body[:-1] if isinstance(node, ast.Expr)]
    return [dotted(node.func) for node in values if isinstance(node, ast.Call) and dotted(node.func) in names]


def dotted(node: ast.expr) -> str:
    """ "np.random.normal" for that expression; "" for what is no chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def _plain(source: str) -> str:
    return re.sub(r"^(?:%%?[a-z]|!).*$", "pass", source, flags=re.M)


def _imports(source: str) -> Iterator[tuple[str, str]]:
    for node in _walk(source):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def _walk(source: str, inside_functions: bool = True) -> Iterator[ast.AST]:
    nodes = [tree(source)] if not error(source) else []
    while nodes:
        node = nodes.pop()
        yield node
        if inside_functions or not isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            nodes += ast.iter_child_nodes(node)


def _keywords(node: ast.Call) -> dict:
    return {keyword.arg: _constant(keyword.value) for keyword in node.keywords if keyword.arg}


def _constant(node: ast.expr):
    """A constant's value; "an expression" for what is computed."""
    return node.value if isinstance(node, ast.Constant) else "an expression"
