"""Parses the service's source, and resolves names to its modules, classes, functions and statements."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

PACKAGE = Path(__file__).parent.parent
QUERIES = "service.db.queries"
Definition: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef"


@dataclass
class Class:
    """A class of the service: its methods and its attributes."""

    module: Module
    name: str
    bases: list[ast.expr]
    methods: dict[str, Function] = field(default_factory=dict)
    attributes: dict[str, tuple[ast.expr, Function | None]] = field(default_factory=dict)
    """Each attribute's annotation, or the value and the method that assigns it, in whose scope names are resolved."""


@dataclass(eq=False)
class Function:
    """A function or method of the service, with its inner functions."""

    module: Module
    name: str
    node: Definition
    owner: Class | None = None
    outer: Function | None = None
    """The enclosing function of one that runs later, such as a lifespan."""

    def walk(self) -> Iterator[ast.AST]:
        """Return every node, except those of inner functions that run later."""
        queue: list[ast.AST] = [self.node]
        while queue:
            node = queue.pop(0)
            yield node
            queue += (child for child in ast.iter_child_nodes(node) if not _runs_later(child))


@dataclass
class Module:
    """One source file: its definitions, aliases and imports."""

    name: str
    tree: ast.Module
    functions: dict[str, Function] = field(default_factory=dict)
    classes: dict[str, Class] = field(default_factory=dict)
    aliases: dict[str, ast.expr] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The module and the name in it for each local name; an empty name is the module itself."""


@dataclass(frozen=True)
class Instance:
    """A value of a class, or a container of such values."""

    of: Class


@dataclass(frozen=True)
class StatementPath:
    """`q`, or an attribute of it: `q.tasks.list`."""

    parts: tuple[str, ...] = ()


Symbol: TypeAlias = "Module | Class | Instance | Function | StatementPath | ast.expr | None"


def read(package: Path = PACKAGE) -> dict[str, Module]:
    """Parse every module of the package, and return them by their dotted names."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = _module(name, ast.parse(path.read_text(encoding="utf-8")))
    return modules


def _module(name: str, tree: ast.Module) -> Module:
    module = Module(name, tree)
    for node in ast.walk(tree):
        _import(module, node)
    for node in tree.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                _function(module, node)
            case ast.ClassDef():
                module.classes[node.name] = _class(module, node)
            case (
                ast.AnnAssign(target=ast.Name(id=alias), value=ast.expr() as value)
                | ast.Assign(targets=[ast.Name(id=alias)], value=value)
            ):
                module.aliases[alias] = value
    return module


def _import(module: Module, node: ast.AST) -> None:
    if isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            module.imports[alias.asname or alias.name] = (node.module, alias.name)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            module.imports[alias.asname or alias.name] = (alias.name, "")


def _function(module: Module, node: Definition) -> None:
    outer = module.functions[node.name] = Function(module, node.name, node)
    for inner in ast.walk(node):
        if isinstance(inner, ast.AsyncFunctionDef) and inner is not node and _runs_later(inner):
            name = f"{node.name}.{inner.name}"
            module.functions[name] = Function(module, name, inner, outer=outer)


def _class(module: Module, node: ast.ClassDef) -> Class:
    result = Class(module, node.name, node.bases)
    for member in node.body:
        match member:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                result.methods[member.name] = Function(module, f"{node.name}.{member.name}", member, result)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                result.attributes[name] = (annotation, None)
    for method in result.methods.values():
        for name, value in _assigned_attributes(method.node):
            result.attributes.setdefault(name, (value, method))
    return result


def _runs_later(node: ast.AST) -> bool:
    """Whether a node defines or names something that runs elsewhere: a lifespan, the pipeline."""
    match node:
        case ast.AsyncFunctionDef(decorator_list=decorators):
            return any(isinstance(node, ast.Name) and node.id == "asynccontextmanager" for node in decorators)
        case ast.Call(func=ast.Name(id="RequestPipeline")):
            return True
    return False


def _assigned_attributes(node: Definition) -> Iterator[tuple[str, ast.expr]]:
    """Return the attributes of `self` that a method assigns, each with its annotation, or else its value."""
    for child in ast.walk(node):
        match child:
            case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name), annotation=value):
                yield name, value
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)], value=value):
                yield name, value


class Names:
    """The names in the scope of one function, and the symbols that they refer to."""

    def __init__(self, modules: dict[str, Module], function: Function) -> None:
        self._modules = modules
        self._module = function.module
        self._locals: dict[str, Symbol] = {}
        if function.owner:
            self._locals["self"] = self._locals["cls"] = Instance(function.owner)
        for scope in filter(None, (function.outer, function)):
            for node in ast.walk(scope.node):
                self._bind(node)

    def _bind(self, node: ast.AST) -> None:
        match node:
            case ast.arg(arg=name, annotation=ast.expr() as annotation):
                self._locals[name] = self._instance_of(annotation, self._module)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                self._locals[name] = self._instance_of(annotation, self._module)
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.NamedExpr(target=ast.Name(id=name), value=value)
            ):
                self._locals.setdefault(name, self.resolve(value))
            case ast.withitem(context_expr=value, optional_vars=ast.Name(id=name)):
                self._locals.setdefault(name, self.resolve(value))
            case (
                ast.For(target=ast.Name(id=name), iter=value) | ast.comprehension(target=ast.Name(id=name), iter=value)
            ):
                self._locals.setdefault(name, self.resolve(value))

    def resolve(self, node: ast.expr) -> Symbol:
        """Return the symbol that an expression refers to; None if the service does not define it."""
        symbol: Symbol = None
        match node:
            case ast.Name(id=name):
                symbol = self._locals[name] if name in self._locals else self._resolve_global(name, self._module)
            case ast.Attribute(value=value, attr=name):
                symbol = self._resolve_attribute(self.resolve(value), name)
            case ast.Call(func=called, args=arguments):
                symbol = self._resolve_call(self.resolve(called), arguments)
            case ast.Await(value=value) | ast.Starred(value=value) | ast.Subscript(value=value):
                symbol = self.resolve(value)
            case ast.BoolOp(values=values):
                symbol = self._resolve_first(values)
            case ast.IfExp(body=first, orelse=second):
                symbol = self._resolve_first([first, second])
            case ast.Constant(value=str(text)) if text.startswith("service.") and text.count(":") == 1:
                module, _, name = text.partition(":")
                symbol = self._resolve_global(name, self._modules[module]) if module in self._modules else None
        return symbol

    def _resolve_global(self, name: str, module: Module) -> Symbol:
        symbol: Symbol = module.functions.get(name) or module.classes.get(name) or module.aliases.get(name)
        if symbol or name not in module.imports:
            return symbol
        origin, inner = module.imports[name]
        if (origin, inner) == (QUERIES, "q"):
            return StatementPath()
        if not inner:
            return self._modules.get(origin)
        if f"{origin}.{inner}" in self._modules:
            return self._modules[f"{origin}.{inner}"]
        return self._resolve_global(inner, self._modules[origin]) if origin in self._modules else None

    def _resolve_attribute(self, symbol: Symbol, name: str) -> Symbol:
        match symbol:
            case StatementPath(parts=parts):
                return StatementPath((*parts, name))
            case Module():
                return self._resolve_global(name, symbol) or self._modules.get(f"{symbol.name}.{name}")
            case Instance(of=owner) | (Class() as owner):
                return self._resolve_member(owner, name)
        return None

    def _resolve_member(self, owner: Class, name: str) -> Symbol:
        if method := owner.methods.get(name):
            return method
        if name in owner.attributes:
            value, method = owner.attributes[name]
            if method is None:
                return self._instance_of(value, owner.module)
            return Names(self._modules, method).resolve(value) or self._instance_of(value, owner.module)
        for base in owner.bases:
            if isinstance(base, ast.Name) and isinstance(symbol := self._resolve_global(base.id, owner.module), Class):
                return self._resolve_member(symbol, name)
        return None

    def _resolve_call(self, called: Symbol, arguments: list[ast.expr]) -> Symbol:
        if isinstance(called, Class):
            return Instance(called)
        if isinstance(called, Function):
            return self._instance_of(called.node.returns, called.module) if called.node.returns else None
        # A call of a library is taken to return its argument: enter_async_context(connected(…)), gather(…).
        return self._resolve_first(arguments)

    def _resolve_first(self, expressions: list[ast.expr]) -> Symbol:
        for expression in expressions:
            if symbol := self.resolve(expression):
                return symbol
        return None

    def _instance_of(self, annotation: ast.expr, module: Module, seen: frozenset[str] = frozenset()) -> Symbol:
        """Return an instance of the first class of the service that an annotation names."""
        for node in ast.walk(annotation):
            symbol: Symbol = None
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in seen:
                symbol = self._instance_of_quoted(node.value, module, seen | {node.value})
            elif isinstance(node, ast.Name) and node.id not in seen:
                named = self._resolve_global(node.id, module)
                if isinstance(named, Class):
                    symbol = Instance(named)
                elif isinstance(named, ast.expr):
                    symbol = self._instance_of(named, self._module_of_alias(node.id, module), seen | {node.id})
            if isinstance(symbol, Instance):
                return symbol
        return None

    def _instance_of_quoted(self, annotation: str, module: Module, seen: frozenset[str]) -> Symbol:
        try:
            return self._instance_of(ast.parse(annotation, mode="eval").body, module, seen)
        except SyntaxError:
            return None

    def _module_of_alias(self, name: str, module: Module) -> Module:
        """Return the module that defines an alias."""
        while name not in module.aliases:
            origin, name = module.imports[name]
            module = self._modules[origin]
        return module
