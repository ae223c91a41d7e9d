"""A method's block: the fields of its class are the keys, for built-in and custom ones alike."""

import dataclasses
import inspect
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import (
    BeforeValidator,
    Field,
    FieldSerializationInfo,
    SerializeAsAny,
    WithJsonSchema,
    create_model,
    field_serializer,
)
from pydantic.errors import PydanticUserError

from dass.config.types import Label, Numeral, Strict, failure, shown
from dass.errors import ConfigError
from dass.pruning.method import Argument
from dass.pruning.methods import START, find_class, is_refinement, make_method
from dass.terms import Targets


class MethodConfig(Strict):
    """What the blocks of all methods have; :func:`block_of` adds the fields of the class."""

    function: str
    """A built-in method, or the class of a custom one, `package.module:Class`."""
    label: Label | None = None
    """Its name in tables and figures; without it, its key."""
    ratios: str | None = None
    """A key of `ratios`: how far each block is pruned; without it, all are pruned alike."""
    targets: Targets = "mlp"
    """What is pruned: `mlp`, the gated MLPs, as in the paper; `attention`, the linear layers of
    self attention; or `all`, both."""
    permute: bool = False
    """Whether a gated MLP's neurons are permuted before N:M groups are laid over them, so that more
    of the scores is kept; the model computes the same. Unstructured patterns are not affected."""

    @property
    def arguments(self) -> dict[str, Any]:
        """All arguments of the class, defaults included, as JSON values."""
        return self.model_dump(mode="json", exclude=set(MethodConfig.model_fields))


def _validated_start(block: Any) -> Any:
    """The block of what a refinement starts from: a method's, with its arguments alone."""
    if not isinstance(block, dict):
        raise failure(("", f"write a method, as in {{function: {START}}}, not {shown(block)}"))
    if block.get("label") is not None:
        raise failure(("label", "write the label beside start: it is that of both together"))
    if block.get("ratios") is not None:
        raise failure(("ratios", "write the ratios beside start: they are those of both together"))
    if block.get("targets") is not None:
        what = "write the targets beside start: they are those of both together"
        raise failure(("targets", what))
    if block.get("permute") is not None:
        raise failure(("permute", "remove it: neurons of what is refined cannot be permuted"))
    return _validated(block)


DEFAULT_START = {"function": START}


class RefinementConfig(MethodConfig):
    """What the blocks of all refinements have beside their fields."""

    start: Annotated[
        MethodConfig,
        BeforeValidator(_validated_start),
        WithJsonSchema({"type": "object", "required": ["function"], "default": DEFAULT_START}),
    ] = Field(default_factory=lambda: _validated(DEFAULT_START))
    """The method whose mask is refined: a block of `function` and its arguments."""

    @field_serializer("start")
    def _without_targets(self, start: MethodConfig, info: FieldSerializationInfo) -> dict[str, Any]:
        """As it may be written: what is pruned, and how, is said beside it."""
        return start.model_dump(mode=info.mode, exclude={"targets", "permute"})

    @property
    def arguments(self) -> dict[str, Any]:
        """All arguments, those of the start among them."""
        start = {"function": self.start.function} | self.start.arguments
        return super().arguments | {"start": start}


@cache
def block_of(cls: type) -> type[MethodConfig]:
    """The block of a method: a key for each field of its dataclass, and a refinement's ``start``.

    Raises:
        ConfigError: it is no dataclass, or a field cannot be written in a config.
    """
    where = f"{cls.__module__}:{cls.__qualname__}"
    if not dataclasses.is_dataclass(cls):
        raise ConfigError(f"{where} is no dataclass; make it one: its fields are its arguments")
    fields: dict[str, Any] = {}
    base = RefinementConfig if is_refinement(cls) else MethodConfig
    try:
        hints = get_type_hints(cls, include_extras=True)
        for field in dataclasses.fields(cls):
            if field.name in base.model_fields or hasattr(base, field.name):
                raise ConfigError(
                    f"{where}: the name of its field {field.name} is taken; rename it"
                )
            default: Any = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = Field(default_factory=field.default_factory)
            if field.init:
                required = default is dataclasses.MISSING
                fields[field.name] = (_declared(hints[field.name]), ... if required else default)
        about = (inspect.getdoc(cls) or "").partition("\n")[0]
        return create_model(cls.__name__, __base__=base, __doc__=about, **fields)
    except (NameError, AttributeError, TypeError, PydanticUserError) as error:
        what = str(error).partition("\n")[0].partition(". ")[0]
        raise ConfigError(f"{where}: its fields cannot be written in a config ({what})") from None


def _declared(hint: Any) -> Any:
    """A field's type with its bounds and description in pydantic's terms."""
    for said in getattr(hint, "__metadata__", ()):
        if isinstance(said, Argument):
            hint = Annotated[
                hint, Field(description=said.description, gt=said.above, ge=said.least)
            ]
            break
    return hint if _may_be_text(hint) else Annotated[hint, Numeral]


def _may_be_text(hint: Any) -> bool:
    """Whether text is a value of this type, so that ``"1"`` must stay what it is."""
    if (parts := get_args(hint)) and not isinstance(hint, type):
        return any(map(_may_be_text, parts[:1] if get_origin(hint) is Annotated else parts))
    return hint not in (int, float, bool, type(None))


def _validated(block: Any) -> Any:
    """A method's block, validated against the fields of its class."""
    if not isinstance(block, dict):
        return block
    if not isinstance(block.get("function"), str):
        return {key: value for key, value in block.items() if key == "function"}
    if "arguments" in block:
        raise failure(("arguments", "write the arguments inline, beside function"))
    try:
        model = block_of(find_class(block["function"]))
    except ConfigError as error:
        raise failure(("function", str(error))) from None
    method = model.model_validate(block)
    try:
        make_method(method.function, method.arguments)
    except (ConfigError, ValueError) as error:  # refused by the class; or no JSON values
        raise failure(("", " ".join(str(error).split()))) from None
    return method


AnyMethod = Annotated[SerializeAsAny[MethodConfig], BeforeValidator(_validated)]
"""A block that says in ``function`` which keys it has."""
