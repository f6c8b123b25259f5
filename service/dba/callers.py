"""Finds the routes and commands that run each statement, by following references through the service's source."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from service.dba.source import PACKAGE, Class, Function, Instance, Module, Names, StatementPath, Symbol, read

METHODS = {"get", "post", "put", "patch", "delete"}
EVERY_REQUEST = "every request"
IMPLICIT_METHODS = ("__init__", "__call__", "__aenter__", "__aexit__", "__enter__", "__exit__")


@cache
def callers(package: Path = PACKAGE) -> Mapping[str, tuple[str, ...]]:
    """Return, for each statement, the routes (`GET /tasks`) and commands (`sql check`) that may run it."""
    graph = _ReferenceGraph(read(package))
    entries_by_statement: defaultdict[str, set[str]] = defaultdict(set)
    for entry, functions in graph.entry_points().items():
        for statement in graph.reachable_statements(functions):
            entries_by_statement[statement].add(entry)
    return {
        statement: tuple(sorted(_without_routes(entries)))
        for statement, entries in sorted(entries_by_statement.items())
    }


def _without_routes(entries: set[str]) -> set[str]:
    """Drop the single routes if every request may run the statement."""
    return {entry for entry in entries if " /" not in entry} if EVERY_REQUEST in entries else entries


def entry_points(package: Path = PACKAGE) -> set[str]:
    """Return the names of all routes and commands."""
    return set(_ReferenceGraph(read(package)).entry_points())


class _ReferenceGraph:
    """The functions of the service, and the functions and statements that each one refers to."""

    def __init__(self, modules: dict[str, Module]) -> None:
        self._modules = modules
        self._references: dict[Function, tuple[set[Function], set[str]]] = {}

    def reachable_statements(self, functions: set[Function]) -> set[str]:
        """Return the statements that these functions may run, directly or through others."""
        visited: set[Function] = set()
        statements: set[str] = set()
        queue = list(functions)
        while queue:
            function = queue.pop()
            if function in visited:
                continue
            visited.add(function)
            further, names = self._references_of(function)
            queue += further
            statements |= names
        return statements

    def _references_of(self, function: Function) -> tuple[set[Function], set[str]]:
        if function not in self._references:
            names = Names(self._modules, function)
            self._references[function] = self._find_references(function.walk(), names, function.module)
        return self._references[function]

    def _find_references(
        self, nodes: Iterable[ast.AST], names: Names, module: Module
    ) -> tuple[set[Function], set[str]]:
        functions: set[Function] = set()
        statements: set[str] = set()
        for node in nodes:
            if not isinstance(node, ast.Name | ast.Attribute | ast.Constant):
                continue
            symbol = names.resolve(node)
            if isinstance(symbol, StatementPath) and len(symbol.parts) == 2:
                statements.add(".".join(symbol.parts))
            elif isinstance(symbol, ast.expr):  # an alias: `Annotated[Viewer, Depends(_viewer)]`
                more = self._find_references(ast.walk(symbol), *self._scope_of_alias(module, node))
                functions |= more[0]
                statements |= more[1]
            functions |= set(_executed(symbol))
        return functions, statements

    def _scope_of_alias(self, module: Module, node: ast.AST) -> tuple[Names, Module]:
        """Return the names of the module that defines an alias."""
        name = node.id if isinstance(node, ast.Name) else ""
        while name and name not in module.aliases and name in module.imports:
            origin, name = module.imports[name]
            module = self._modules.get(origin, module)
        nothing = ast.parse("def nothing(): pass").body[0]
        assert isinstance(nothing, ast.FunctionDef)
        return Names(self._modules, Function(module, "", nothing)), module

    def entry_points(self) -> dict[str, set[Function]]:
        """Return the functions that each route and command starts with."""
        entries: defaultdict[str, set[Function]] = defaultdict(set)
        for module in self._modules.values():
            for name, functions in (*self._routes(module), *self._commands(module)):
                entries[name] |= functions
        application = self._modules["service.app"]
        entries[EVERY_REQUEST] = set(self._pipeline(application))
        entries["serve"] |= {function for function in application.functions.values() if function.outer}
        return entries

    def _routes(self, module: Module) -> Iterator[tuple[str, set[Function]]]:
        match module.aliases.get("router"):
            case ast.Call(keywords=keywords) as router:
                prefix = next((_text(keyword.value) for keyword in keywords if keyword.arg == "prefix"), "")
                shared, _ = self._find_references(ast.walk(router), *self._scope_of_alias(module, router))
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
                case ast.AsyncFunctionDef(name="serve"):
                    called, _ = self._find_references(ast.walk(node), *self._scope_of_alias(module, node))
                    yield "GET /ws", {*called, *shared}

    def _commands(self, module: Module) -> Iterator[tuple[str, set[Function]]]:
        commands = {"tools": "sql"}
        for function in module.functions.values():
            for node in (node for line in function.node.body for node in ast.walk(line)):
                match node:
                    case ast.Assign(
                        targets=[ast.Name(id=variable)],
                        value=ast.Call(
                            func=ast.Attribute(value=ast.Name(id=parent), attr="add_parser"), args=[word, *_]
                        ),
                    ):
                        commands[variable] = f"{commands.get(parent, '')} {_text(word)}".strip()
                    case ast.Call(
                        func=ast.Attribute(value=ast.Name(id=variable), attr="set_defaults"),
                        keywords=[ast.keyword(arg="run", value=ast.Constant(value=str(run)))],
                    ) if variable in commands:
                        submodule, _, name = run.partition(".")
                        yield commands[variable], {self._modules[f"{module.name}.{submodule}"].functions[name]}

    def _pipeline(self, module: Module) -> Iterator[Function]:
        for function in module.functions.values():
            names = Names(self._modules, function)
            for node in ast.walk(function.node):
                match node:
                    case ast.Call(func=ast.Name(id="RequestPipeline") as pipeline):
                        yield from _executed(names.resolve(pipeline))


def _text(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ""


def _executed(symbol: Symbol) -> Iterator[Function]:
    """Return the functions that may run because the source refers to a symbol."""
    if isinstance(symbol, Function):
        yield symbol
    owner = symbol.of if isinstance(symbol, Instance) else symbol
    if isinstance(owner, Class):
        yield from (owner.methods[name] for name in IMPLICIT_METHODS if name in owner.methods)
