"""Who runs which statement: routes and commands, found in the source by following what refers to what."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from service.dba.source import PACKAGE, Class, Function, Instance, Module, Names, Query, Thing, read

METHODS = {"get", "post", "put", "patch", "delete"}
EVERY_REQUEST = "every request"
IMPLICIT = ("__init__", "__call__", "__aenter__", "__aexit__", "__enter__", "__exit__")


@cache
def callers(package: Path = PACKAGE) -> Mapping[str, tuple[str, ...]]:
    """Give the routes (`GET /tasks`) and commands (`sql check`) that may run each statement, by its name."""
    graph = _Graph(read(package))
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name, roots in graph.roots().items():
        for statement in graph.reached(roots):
            found[statement].add(name)
    return {statement: tuple(sorted(_shortened(names))) for statement, names in sorted(found.items())}


def _shortened(names: set[str]) -> set[str]:
    """Leave single routes out where every request may run the statement."""
    return {name for name in names if " /" not in name} if EVERY_REQUEST in names else names


def entries(package: Path = PACKAGE) -> set[str]:
    """Give all routes and commands there are."""
    return set(_Graph(read(package)).roots())


class _Graph:
    """What refers to what."""

    def __init__(self, modules: dict[str, Module]) -> None:
        self._modules = modules
        self._edges: dict[Function, tuple[set[Function], set[str]]] = {}

    def reached(self, roots: set[Function]) -> set[str]:
        """Give the statements that may be run from there."""
        seen: set[Function] = set()
        statements: set[str] = set()
        waiting = list(roots)
        while waiting:
            function = waiting.pop()
            if function in seen:
                continue
            seen.add(function)
            further, names = self._of(function)
            waiting += further
            statements |= names
        return statements

    def _of(self, function: Function) -> tuple[set[Function], set[str]]:
        if function not in self._edges:
            self._edges[function] = self._referred(function.walk(), Names(self._modules, function), function.module)
        return self._edges[function]

    def _referred(self, nodes: Iterable[ast.AST], names: Names, module: Module) -> tuple[set[Function], set[str]]:
        functions: set[Function] = set()
        statements: set[str] = set()
        for node in nodes:
            if not isinstance(node, ast.Name | ast.Attribute | ast.Constant):
                continue
            thing = names.thing(node)
            if isinstance(thing, Query) and len(thing.parts) == 2:
                statements.add(".".join(thing.parts))
            elif isinstance(thing, ast.expr):  # an alias: `Annotated[Viewer, Depends(_viewer)]`
                more = self._referred(ast.walk(thing), *self._in(module, node))
                functions |= more[0]
                statements |= more[1]
            functions |= set(_run(thing))
        return functions, statements

    def _in(self, module: Module, node: ast.AST) -> tuple[Names, Module]:
        """Give the names of the module where an alias is written."""
        name = node.id if isinstance(node, ast.Name) else ""
        while name and name not in module.aliases and name in module.imports:
            origin, name = module.imports[name]
            module = self._modules.get(origin, module)
        nothing = ast.parse("def nothing(): pass").body[0]
        assert isinstance(nothing, ast.FunctionDef)
        return Names(self._modules, Function(module, "", nothing)), module

    def roots(self) -> dict[str, set[Function]]:
        """Give what each route and command begins with."""
        found: defaultdict[str, set[Function]] = defaultdict(set)
        for module in self._modules.values():
            for name, functions in (*self._routes(module), *self._commands(module)):
                found[name] |= functions
        application = self._modules["service.app"]
        found[EVERY_REQUEST] = set(self._middleware(application))
        found["serve"] |= {function for function in application.functions.values() if function.outer}
        return found

    def _routes(self, module: Module) -> Iterator[tuple[str, set[Function]]]:
        match module.aliases.get("router"):
            case ast.Call(keywords=keywords) as router:
                prefix = next((_text(one.value) for one in keywords if one.arg == "prefix"), "")
                shared, _ = self._referred(ast.walk(router), *self._in(module, router))
            case _:
                return
        for function in module.functions.values():
            for decorator in function.node.decorator_list:
                match decorator:
                    case ast.Call(func=ast.Attribute(value=ast.Name(id="router"), attr=method), args=[path, *_]):
                        if method in METHODS:
                            yield f"{method.upper()} {prefix}{_text(path)}", {function, *shared}
        for node in module.tree.body:
            match node:
                case ast.ClassDef(name="WebSocketMiddleware"):
                    called, _ = self._referred(ast.walk(node), *self._in(module, node))
                    yield "GET /ws", {*called, *shared}

    def _commands(self, module: Module) -> Iterator[tuple[str, set[Function]]]:
        names = {"tools": "sql"}
        for function in module.functions.values():
            for node in (node for line in function.node.body for node in ast.walk(line)):
                match node:
                    case ast.Assign(
                        targets=[ast.Name(id=variable)],
                        value=ast.Call(
                            func=ast.Attribute(value=ast.Name(id=parent), attr="add_parser"), args=[word, *_]
                        ),
                    ):
                        names[variable] = f"{names.get(parent, '')} {_text(word)}".strip()
                    case ast.Call(
                        func=ast.Attribute(value=ast.Name(id=variable), attr="set_defaults"),
                        keywords=[ast.keyword(arg="run", value=ast.Constant(value=str(run)))],
                    ) if variable in names:
                        command, _, name = run.partition(".")
                        yield names[variable], {self._modules[f"{module.name}.{command}"].functions[name]}

    def _middleware(self, module: Module) -> Iterator[Function]:
        for function in module.functions.values():
            names = Names(self._modules, function)
            for node in ast.walk(function.node):
                match node:
                    case ast.Call(func=ast.Attribute(attr="add_middleware"), args=[given, *_]):
                        yield from _run(names.thing(given))


def _text(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ""


def _run(thing: Thing) -> Iterator[Function]:
    """Give what runs where a thing is referred to."""
    if isinstance(thing, Function):
        yield thing
    owner = thing.of if isinstance(thing, Instance) else thing
    if isinstance(owner, Class):
        yield from (owner.methods[name] for name in IMPLICIT if name in owner.methods)
