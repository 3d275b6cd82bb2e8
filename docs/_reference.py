"""For mkdocstrings: the reference shows what a caller may use, and nothing of how it is made.

- A constructor that takes something internal is not shown: callers get such an object from a method. Nor is the
  constructor of an exception.
- A Struct has a signature of its fields, as msgspec gives it one.
- A default is shown as its value, and an alias that is not public as what it stands for.
- A base class that is not public is left out. Its own bases stand in its place, and its public members in the class.
- A method that a class takes over from another one by a call is shown as that method.
- An attribute that a constructor sets is shown with its type. The expression that it is set to says nothing.
- In a docstring, a name of ours between single backticks is a link, and a block after two colons is code.
"""

# ruff: noqa: INP001 - mkdocstrings loads it by its path
from __future__ import annotations

import copy
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from importlib import import_module
from textwrap import dedent
from typing import Any

import griffe
import msgspec

Expression = griffe.Expr | str | None

PUBLIC_MODULES = (
    "enclave",
    "enclave.errors",
    "enclave.opentelemetry",
    "enclave.ray",
    "enclave.simulator",
    "enclave.transport",
    "enclave.types",
)
CONSTRUCTED_LIKE = {"SyncEnclaveClient": "enclave.EnclaveClient", "SyncSimulator": "enclave.simulator.Simulator"}
"""Classes that pass on what they are given."""
TAKE_OVER = {"_on_its_loop"}
"""What makes a method of the one that it is given."""
NOT_GIVEN = {"UNSET", "UnsetType", "msgspec.UNSET", "msgspec.UnsetType"}
"""What stands for an argument that is not given. Nobody passes it."""
LABELS = {"async", "classmethod", "property", "writable"}
"""Which labels say something to a caller."""
NAME = re.compile(r"(?<![`\[])`([A-Za-z_][\w.]*)`(?!`)")
"""A name in a docstring."""
CODE = re.compile(r"^::\n\n((?: {4}.*(?:\n|\Z)|\n)+)", re.MULTILINE)
"""A block of code in a docstring, as `help()` shows it well."""


class Reference(griffe.Extension):
    """Changes what Griffe has read of the package, before it is shown."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **_: Any) -> None:
        """The whole package has been read."""
        if pkg.name != "enclave":
            return
        loader.resolve_aliases(implicit=True, external=False)
        package = _Package(loader.modules_collection)
        for step in (package.complete, package.show, package.show_docstring):
            for each in list(_objects(pkg)):  # with what the step before has added
                step(each)


def _objects(parent: griffe.Object) -> Iterator[griffe.Object]:
    for member in parent.members.values():
        if isinstance(member, griffe.Object):
            yield member
            yield from _objects(member)


class _Package:
    def __init__(self, modules: griffe.ModulesCollection) -> None:
        self._modules = modules

    def complete(self, each: griffe.Object) -> None:
        """Give a public class the members that it has from elsewhere."""
        if not isinstance(each, griffe.Class) or each.canonical_path not in self._public:
            return
        for attribute in list(each.attributes.values()):
            if isinstance(attribute.value, griffe.ExprCall) and str(attribute.value.function) in TAKE_OVER:
                method = self._ours(attribute.value.arguments[0])
                if isinstance(method, griffe.Function):
                    _add_copy(each, method, attribute.lineno)
        for base in self._hidden_bases(each):
            for name, member in base.members.items():
                if not name.startswith("_") and name not in each.members and isinstance(member, griffe.Object):
                    _add_copy(each, member, each.endlineno)

    def _hidden_bases(self, cls: griffe.Class) -> Iterator[griffe.Class]:
        for base in cls.bases:
            found = self._ours(base.left if isinstance(base, griffe.ExprSubscript) else base)
            if isinstance(found, griffe.Class) and found.canonical_path not in self._public:
                yield found
                yield from self._hidden_bases(found)

    def show(self, each: griffe.Object) -> None:
        """Show an object as a caller sees it."""
        if isinstance(each, griffe.Class):
            self._show_class(each)
        elif isinstance(each, griffe.Function):
            self._show_function(each)
        elif isinstance(each, griffe.Attribute):
            self._show_attribute(each)
        each.labels &= LABELS

    def _show_class(self, cls: griffe.Class) -> None:
        for attribute in cls.attributes.values():
            if "instance-attribute" in attribute.labels and "class-attribute" not in attribute.labels:
                attribute.annotation = attribute.annotation or _type_of(attribute, cls["__init__"].parameters)
                attribute.value = None
        if (signature := _struct_signature(cls)) is not None:
            cls.set_member("__init__", self._struct_constructor(cls, signature))
        if (like := CONSTRUCTED_LIKE.get(cls.name)) is not None:
            constructor = self._modules[like].final_target["__init__"]
            cls["__init__"].parameters = constructor.parameters
        if self._is_made_by_us(cls):
            cls.members.pop("__init__", None)
            cls.decorators = []  # of a dataclass, for which Griffe would make a constructor
        cls.bases = list(self._public_bases(cls))

    def show_docstring(self, each: griffe.Object) -> None:
        """Make links of names, and code of code."""
        is_shown = each.canonical_path in self._public or (each.parent and each.parent.canonical_path in self._public)
        if each.docstring is None or not is_shown:
            return
        text = NAME.sub(lambda name: self._linked(name[1], each), each.docstring.value)
        each.docstring.value = CODE.sub(lambda code: f"```python\n{dedent(code[1]).strip()}\n```\n\n", text)
        for section in each.docstring.parsed:
            if isinstance(section, griffe.DocstringSectionRaises):
                for raised in section.value:
                    if isinstance(raised.annotation, griffe.ExprTuple):
                        raised.annotation.implicit = True  # `TypeError, ValueError`, without brackets

    def _linked(self, name: str, owner: griffe.Object) -> str:
        path = self._path(name, owner)
        return f'<autoref identifier="{path}" optional>`{name}`</autoref>' if path else f"`{name}`"

    def _path(self, name: str, owner: griffe.Object) -> str | None:
        """What a name in the docstring of `owner` stands for. None for a parameter, and for what is not public."""
        cls = owner if isinstance(owner, griffe.Class) else owner.parent
        if isinstance(cls, griffe.Class) and name in cls.members and not name.startswith("_"):
            path = f"{self._public.get(cls.canonical_path)}.{name}"
            return None if cls.members[name] is owner or name in _described_parameters(owner) else path
        if name in self._public.values():
            return name
        head, dot, member = name.partition(".")
        path = self._path_by_name.get(head)
        if path is None or self._public.get(owner.canonical_path) == path:
            return None
        # A function is named like the methods of many classes, so only its own package calls it by its name alone.
        is_called_so = head[0].isupper() or owner.canonical_path.startswith(path.removesuffix(head))
        return path + dot + member if is_called_so else None

    def _show_function(self, function: griffe.Function) -> None:
        function.returns = self._plain(function.returns)
        if "contextmanager" in [str(decorator.value) for decorator in function.decorators]:
            function.returns = _context_manager(function.returns)
        for parameter in function.parameters:
            parameter.annotation = self._plain(parameter.annotation)
            is_variadic = parameter.kind in {griffe.ParameterKind.var_positional, griffe.ParameterKind.var_keyword}
            parameter.default = None if is_variadic else self._value(parameter.default)
        for overload in function.overloads or ():
            self._show_function(overload)
            for parameter in overload.parameters:
                if parameter.default == "...":
                    parameter.default = function.parameters[parameter.name].default

    def _show_attribute(self, attribute: griffe.Attribute) -> None:
        attribute.annotation = self._plain(attribute.annotation)
        attribute.value = None if self._is_internal(attribute.value) else self._value(attribute.value)

    @cached_property
    def _public(self) -> dict[str, str]:
        """The path of each public name, by where it is defined."""
        paths = [f"{module}.{name}" for module in PUBLIC_MODULES for name in self._modules[module].exports or ()]
        return {self._modules[path].canonical_path: path for path in reversed(paths)}

    @cached_property
    def _path_by_name(self) -> dict[str, str]:
        return {path.rpartition(".")[2]: path for path in self._public.values()}

    def _ours(self, name: griffe.Expr) -> griffe.Object | None:
        """What of the package a name stands for, if it is of the package."""
        if not name.canonical_path.startswith("enclave."):
            return None
        try:
            found = self._modules[name.canonical_path]
            return found.final_target if isinstance(found, griffe.Alias) else found
        except (KeyError, griffe.AliasResolutionError):
            return None

    def _is_internal(self, expression: Expression) -> bool:
        """Whether it names a class that is not public."""
        return any(
            isinstance(found := self._ours(name), griffe.Class) and found.canonical_path not in self._public
            for name in _names(self._plain(expression))
        )

    def _plain(self, annotation: Expression) -> Expression:
        """The annotation with what they stand for in place of aliases that are not public."""
        if isinstance(annotation, griffe.ExprSubscript) and str(annotation.left) == "OrAbsent":
            return self._plain(annotation.slice)
        if isinstance(annotation, griffe.ExprBinOp) and annotation.operator == "|":
            sides = [side for side in (annotation.left, annotation.right) if str(side) not in NOT_GIVEN]
            if len(sides) == 1:
                return self._plain(sides[0])
        if isinstance(annotation, griffe.ExprName):
            found = self._ours(annotation)
            if isinstance(found, griffe.Attribute) and found.canonical_path not in self._public and _is_alias(found):
                return self._plain(found.value)
            return annotation
        return _mapped(self._plain, annotation)

    def _value(self, default: Expression) -> Expression:
        """The value of a default, also of one that has a name or is made for each object."""
        if isinstance(default, griffe.ExprName) and isinstance(found := self._ours(default), griffe.Attribute):
            return self._value(found.value)
        if isinstance(default, griffe.ExprCall) and str(default.function) in {"field", "msgspec.field"}:
            given = {str(each.name): each.value for each in default.arguments if isinstance(each, griffe.ExprKeyword)}
            value = given.get("default", given.get("default_factory"))
            return value.arguments[-1] if isinstance(value, griffe.ExprCall) else value
        return "..." if str(default) in NOT_GIVEN else _as_written(default)

    def _is_made_by_us(self, cls: griffe.Class) -> bool:
        if "__init__" in cls.members:
            taken: list[Expression] = [parameter.annotation for parameter in cls["__init__"].parameters]
        else:
            taken = [member.annotation for member in cls.attributes.values()]
        return _is_exception(cls) or any(map(self._is_internal, taken))

    def _public_bases(self, cls: griffe.Class) -> Iterator[Expression]:
        for base in cls.bases:
            name = base.left if isinstance(base, griffe.ExprSubscript) else base
            found = self._ours(name) if isinstance(name, griffe.Expr) else None
            if isinstance(found, griffe.Class) and found.canonical_path not in self._public:
                yield from self._public_bases(found)
            elif str(name) not in {"Generic", "Struct", "msgspec.Struct"}:
                yield base

    def _struct_constructor(self, cls: griffe.Class, signature: inspect.Signature) -> griffe.Function:
        members = {name: member for each in [*reversed(cls.mro()), cls] for name, member in each.attributes.items()}
        parameters = [
            griffe.Parameter(
                name,
                annotation=members[name].annotation,
                kind=griffe.ParameterKind[parameter.kind.name.lower()],
                default=None if parameter.default is parameter.empty else members[name].value,
            )
            for name, parameter in signature.parameters.items()
        ]
        constructor = griffe.Function("__init__", parameters=griffe.Parameters(griffe.Parameter("self"), *parameters))
        self._show_function(constructor)
        return constructor


def _struct_signature(cls: griffe.Class) -> inspect.Signature | None:
    if cls.canonical_path.startswith("enclave.ray."):  # has none, and importing it takes Ray
        return None
    made = getattr(import_module(cls.module.canonical_path), cls.name, None)
    is_struct = isinstance(made, type) and issubclass(made, msgspec.Struct)
    return inspect.signature(made) if is_struct else None


def _add_copy(cls: griffe.Class, member: griffe.Object, lineno: int | None) -> None:
    """Give a class a member of another one, at this line of it."""
    copied = copy.copy(member)
    copied.lineno = lineno
    cls.set_member(copied.name, copied)
    if member.docstring is not None:
        copied.docstring = copy.copy(member.docstring)
        copied.docstring.parent = copied


def _described_parameters(owner: griffe.Object) -> set[str]:
    """The parameters that the docstring of a function, or of a class for its constructor, may speak of."""
    function = owner
    if owner.docstring is not None and "Args:" in owner.docstring.value:
        function = owner.members.get("__init__", owner)
    return {parameter.name for parameter in function.parameters} if isinstance(function, griffe.Function) else set()


def _as_written(expression: Any) -> Any:
    """The expression with texts in double quotes, and names with what they are an attribute of."""
    if isinstance(expression, griffe.ExprAttribute):
        return str(expression)
    if isinstance(expression, str):
        return re.sub(r"\A'([^'\"]*)'\Z", r'"\1"', expression)
    return _mapped(_as_written, expression)


def _is_exception(cls: griffe.Class) -> bool:
    return cls.canonical_path.startswith("enclave.errors.")


def _is_alias(attribute: griffe.Attribute) -> bool:
    """Whether it stands for a type, and is no variable of types."""
    return not (isinstance(attribute.value, griffe.ExprCall) or attribute.value is None)


def _type_of(attribute: griffe.Attribute, parameters: griffe.Parameters) -> Expression:
    """The type of what a constructor sets: that of the parameter it comes from, or the class it is made of."""
    if isinstance(attribute.value, griffe.ExprCall) and str(attribute.value.function)[0].isupper():
        return attribute.value.function
    sources = [parameters[str(name)] for name in _names(attribute.value) if str(name) in parameters]
    return sources[0].annotation if sources else None


def _context_manager(iterator: Expression) -> Expression:
    """What `contextmanager` makes of a function that returns such an iterator."""
    if isinstance(iterator, griffe.ExprSubscript):
        return dataclasses.replace(iterator, left="AbstractContextManager")
    return iterator


def _names(expression: object) -> Iterator[griffe.ExprName]:
    if isinstance(expression, griffe.ExprName):
        yield expression
    elif isinstance(expression, list | tuple):
        for each in expression:
            yield from _names(each)
    elif isinstance(expression, griffe.Expr):
        for field in dataclasses.fields(expression):
            yield from _names(getattr(expression, field.name))


def _mapped(change: Callable[[Any], Any], expression: Any) -> Any:
    """The expression with its parts changed."""
    if isinstance(expression, list):
        return [change(each) for each in expression]
    if not isinstance(expression, griffe.Expr):
        return expression
    parts = {field.name: getattr(expression, field.name) for field in dataclasses.fields(expression)}
    return dataclasses.replace(
        expression, **{name: change(part) for name, part in parts.items() if isinstance(part, griffe.Expr | list)}
    )
