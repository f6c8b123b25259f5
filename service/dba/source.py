"""The service's own source, as far as it says who refers to what: modules, classes, functions and their types."""

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
    """A class of the service: its methods, and what its attributes hold."""

    module: Module
    name: str
    bases: list[ast.expr]
    methods: dict[str, Function] = field(default_factory=dict)
    attributes: dict[str, tuple[ast.expr, Function | None]] = field(default_factory=dict)
    """What an attribute is annotated with, or assigned in a method, which gives the names there their meaning."""


@dataclass(eq=False)
class Function:
    """A function or method of the service, with the functions inside of it."""

    module: Module
    name: str
    node: Definition
    owner: Class | None = None
    outer: Function | None = None
    """The function that it is defined in, for one that is handed on and run later: a lifespan."""

    def walk(self) -> Iterator[ast.AST]:
        """Give every node, but for those of functions that are handed on."""
        waiting: list[ast.AST] = [self.node]
        while waiting:
            node = waiting.pop(0)
            yield node
            waiting += (one for one in ast.iter_child_nodes(node) if not _handed_on(one))


@dataclass
class Module:
    """One file: what is defined in it and what its names stand for."""

    name: str
    tree: ast.Module
    functions: dict[str, Function] = field(default_factory=dict)
    classes: dict[str, Class] = field(default_factory=dict)
    aliases: dict[str, ast.expr] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Local name → module, and the name in it; an empty one is the module itself."""


@dataclass(frozen=True)
class Instance:
    """A value of a class, or of several of it in a container."""

    of: Class


@dataclass(frozen=True)
class Query:
    """`q`, or what comes behind it: `q.tasks.list`."""

    parts: tuple[str, ...] = ()


Thing: TypeAlias = "Module | Class | Instance | Function | Query | ast.expr | None"


def read(package: Path = PACKAGE) -> dict[str, Module]:
    """Read every module under the package, by its dotted name."""
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
        for one in node.names:
            module.imports[one.asname or one.name] = (node.module, one.name)
    elif isinstance(node, ast.Import):
        for one in node.names:
            module.imports[one.asname or one.name] = (one.name, "")


def _function(module: Module, node: Definition) -> None:
    outer = module.functions[node.name] = Function(module, node.name, node)
    for inner in ast.walk(node):
        if isinstance(inner, ast.AsyncFunctionDef) and inner is not node and _handed_on(inner):
            name = f"{node.name}.{inner.name}"
            module.functions[name] = Function(module, name, inner, outer=outer)


def _class(module: Module, node: ast.ClassDef) -> Class:
    made = Class(module, node.name, node.bases)
    for member in node.body:
        match member:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                made.methods[member.name] = Function(module, f"{node.name}.{member.name}", member, made)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                made.attributes[name] = (annotation, None)
    for method in made.methods.values():
        for name, value in _own(method.node):
            made.attributes.setdefault(name, (value, method))
    return made


def _handed_on(node: ast.AST) -> bool:
    """Whether it is defined or named here, and run elsewhere: a lifespan, a middleware."""
    match node:
        case ast.AsyncFunctionDef(decorator_list=decorators):
            return any(isinstance(one, ast.Name) and one.id == "asynccontextmanager" for one in decorators)
        case ast.Call(func=ast.Attribute(attr="add_middleware")):
            return True
    return False


def _own(node: Definition) -> Iterator[tuple[str, ast.expr]]:
    """Give what a method assigns to attributes of `self`; an annotation rather than the value."""
    for one in ast.walk(node):
        match one:
            case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name), annotation=value):
                yield name, value
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)], value=value):
                yield name, value


class Names:
    """What the expressions in one function stand for."""

    def __init__(self, modules: dict[str, Module], function: Function) -> None:
        self._modules = modules
        self._module = function.module
        self._locals: dict[str, Thing] = {}
        if function.owner:
            self._locals["self"] = self._locals["cls"] = Instance(function.owner)
        for one in filter(None, (function.outer, function)):
            for node in ast.walk(one.node):
                self._learn(node)

    def _learn(self, node: ast.AST) -> None:
        match node:
            case ast.arg(arg=name, annotation=ast.expr() as annotation):
                self._locals[name] = self._annotated(annotation, self._module)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                self._locals[name] = self._annotated(annotation, self._module)
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.NamedExpr(target=ast.Name(id=name), value=value)
            ):
                self._locals.setdefault(name, self.thing(value))
            case ast.withitem(context_expr=value, optional_vars=ast.Name(id=name)):
                self._locals.setdefault(name, self.thing(value))
            case (
                ast.For(target=ast.Name(id=name), iter=value) | ast.comprehension(target=ast.Name(id=name), iter=value)
            ):
                self._locals.setdefault(name, self.thing(value))

    def thing(self, node: ast.expr) -> Thing:
        """Give what an expression stands for, where that is of the service's own making."""
        found: Thing = None
        match node:
            case ast.Name(id=name):
                found = self._locals[name] if name in self._locals else self._global(name, self._module)
            case ast.Attribute(value=value, attr=name):
                found = self._attribute(self.thing(value), name)
            case ast.Call(func=called, args=arguments):
                found = self._result(self.thing(called), arguments)
            case ast.Await(value=value) | ast.Starred(value=value) | ast.Subscript(value=value):
                found = self.thing(value)
            case ast.BoolOp(values=values):
                found = self._first(values)
            case ast.IfExp(body=first, orelse=second):
                found = self._first([first, second])
            case ast.Constant(value=str(text)) if text.startswith("service.") and text.count(":") == 1:
                module, _, name = text.partition(":")
                found = self._global(name, self._modules[module]) if module in self._modules else None
        return found

    def _global(self, name: str, module: Module) -> Thing:
        found: Thing = module.functions.get(name) or module.classes.get(name) or module.aliases.get(name)
        if found or name not in module.imports:
            return found
        origin, inner = module.imports[name]
        if (origin, inner) == (QUERIES, "q"):
            return Query()
        if not inner:
            return self._modules.get(origin)
        if f"{origin}.{inner}" in self._modules:
            return self._modules[f"{origin}.{inner}"]
        return self._global(inner, self._modules[origin]) if origin in self._modules else None

    def _attribute(self, thing: Thing, name: str) -> Thing:
        match thing:
            case Query(parts=parts):
                return Query((*parts, name))
            case Module():
                return self._global(name, thing) or self._modules.get(f"{thing.name}.{name}")
            case Instance(of=owner) | (Class() as owner):
                return self._member(owner, name)
        return None

    def _member(self, owner: Class, name: str) -> Thing:
        if method := owner.methods.get(name):
            return method
        if name in owner.attributes:
            value, method = owner.attributes[name]
            if method is None:
                return self._annotated(value, owner.module)
            return Names(self._modules, method).thing(value) or self._annotated(value, owner.module)
        for base in owner.bases:
            if isinstance(base, ast.Name) and isinstance(found := self._global(base.id, owner.module), Class):
                return self._member(found, name)
        return None

    def _result(self, called: Thing, arguments: list[ast.expr]) -> Thing:
        if isinstance(called, Class):
            return Instance(called)
        if isinstance(called, Function):
            return self._annotated(called.node.returns, called.module) if called.node.returns else None
        # What a call of a library gives is what goes in: enter_async_context(connected(…)), gather(…).
        return self._first(arguments)

    def _first(self, expressions: list[ast.expr]) -> Thing:
        for one in expressions:
            if thing := self.thing(one):
                return thing
        return None

    def _annotated(self, annotation: ast.expr, module: Module, seen: frozenset[str] = frozenset()) -> Thing:
        """Give an instance of the first class of the service's that an annotation names."""
        for node in ast.walk(annotation):
            found: Thing = None
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in seen:
                found = self._quoted(node.value, module, seen | {node.value})
            elif isinstance(node, ast.Name) and node.id not in seen:
                named = self._global(node.id, module)
                if isinstance(named, Class):
                    found = Instance(named)
                elif isinstance(named, ast.expr):
                    found = self._annotated(named, self._home(node.id, module), seen | {node.id})
            if isinstance(found, Instance):
                return found
        return None

    def _quoted(self, annotation: str, module: Module, seen: frozenset[str]) -> Thing:
        try:
            return self._annotated(ast.parse(annotation, mode="eval").body, module, seen)
        except SyntaxError:
            return None

    def _home(self, name: str, module: Module) -> Module:
        """Give the module in which a name's alias is written."""
        while name not in module.aliases:
            origin, name = module.imports[name]
            module = self._modules[origin]
        return module
