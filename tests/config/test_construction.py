"""From a name and options to the object."""

from __future__ import annotations

import inspect

import pytest

from mdtheory.config import construct
from mdtheory.config.construction import typed_options
from mdtheory.config.schema import GeometryConfig, ModelConfig
from mdtheory.core.registry import Registry
from mdtheory.data.sources import data_sources
from mdtheory.geometry import geometries
from mdtheory.inner.estimators import estimators
from mdtheory.models.base import models


@pytest.fixture
def shapes() -> Registry:
    """A registry of two factories, filled without discovery."""
    registry = Registry("model", "tests.config")
    registry._discovered = True

    @registry.register("square")
    def square(*, n_way: int, side: float = 1.0) -> tuple[int, float]:
        return n_way, side**2

    @registry.register("free")
    def free(**options: float) -> dict[str, float]:
        return options

    @registry.register("needy")
    def needy(*, width: int) -> int:
        return width

    return registry


def test_options_and_fixed_values_arrive(shapes):
    assert construct(shapes, ModelConfig(name="square", options={"side": 3.0}), n_way=5) == (5, 9.0)


def test_fixed_values_that_the_factory_does_not_take_are_left_out(shapes):
    assert construct(shapes, ModelConfig(name="square"), n_way=5, image_size=84) == (5, 1.0)
    assert construct(shapes, ModelConfig(name="free"), n_way=5) == {"n_way": 5}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("sqare", {}, "did you mean 'square'"),
        (
            "square",
            {"sid": 1},
            r"model\.options\.sid is not a known key of 'square'; did you mean 'side'",
        ),
        ("square", {"zzz": 1}, r"known: side$"),
        ("square", {"n_way": 1}, "must not hold 'n_way', which another section decides; remove it"),
        ("needy", {}, "must hold 'width', got no such key; add it"),
        ("square", {"side": "wide"}, r"model\.options\.side must be what square takes, got 'wide'"),
        ("square", {"side": True}, "must be what square takes, got True"),
        ("needy", {"width": 1.5}, "must be what needy takes, got 1.5"),
    ],
)
def test_an_option_that_does_not_fit_is_one_sentence(shapes, name, options, expected):
    with pytest.raises(ValueError, match=expected):
        construct(shapes, ModelConfig(name=name, options=options), n_way=5)


REAL = [geometries, models, estimators, data_sources]
ODD = [-1, 1.5, "x", True, [], [[]], ["a"], {"a": 1}, [1, 2], 10**18, 1e300]


@pytest.mark.parametrize("registry", REAL, ids=lambda registry: registry.kind)
def test_every_option_of_every_component_has_a_type_that_is_checked(registry):
    """With the negative control: each option refuses some value for its type."""
    for name in registry.names():
        factory = registry.get(name)
        for key, parameter in inspect.signature(factory).parameters.items():
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            said = []
            for value in ODD:
                try:
                    typed_options(factory, "part", {key: value}, of=name)
                except ValueError as error:
                    said.append(str(error))
            assert said, f"{name}.{key} takes anything"
            assert all(f"part.options.{key} must be what {name} takes" in one for one in said)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("metamida", {"partition": 1.5}),
        ("metamida", {"scale": []}),
        ("ecml", {"conditioned": 0}),
        ("maml", {"map": "identity"}),
        ("mirror", {"map": -1}),
        ("metakfo", {"hidden": 1.5}),
        ("warpgrad", {"after": 1e30}),
        ("mtnet", {"adapt_norms": "x"}),
        ("prior", {"precision": True}),
    ],
)
def test_an_option_of_another_type_is_one_sentence_and_no_traceback(name, options):
    with pytest.raises(ValueError, match=r"options\.\w+ must be what|scale must be"):
        construct(geometries, GeometryConfig(name=name, options=options))


def test_the_real_geometries_are_built_from_their_section():
    assert (
        construct(geometries, GeometryConfig(name="metasgd", options={"form": "free"})).rule.form
        == "free"
    )
    with pytest.raises(
        ValueError,
        match=r"geometry\.options\.from is not a known key of 'metasgd'; did you mean 'form'",
    ):
        construct(geometries, GeometryConfig(name="metasgd", options={"from": "free"}))
