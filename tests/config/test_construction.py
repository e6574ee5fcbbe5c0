"""From a name and options to the object."""

from __future__ import annotations

import pytest

from mdtheory.config import construct
from mdtheory.config.schema import GeometryConfig, ModelConfig
from mdtheory.core.registry import Registry


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
        ("square", {"side": "wide"}, r"must have the right types, got \{'side': 'wide'\}"),
    ],
)
def test_an_option_that_does_not_fit_is_one_sentence(shapes, name, options, expected):
    with pytest.raises(ValueError, match=expected):
        construct(shapes, ModelConfig(name=name, options=options), n_way=5)


def test_the_real_geometries_are_built_from_their_section():
    from mdtheory.geometry import geometries

    assert (
        construct(geometries, GeometryConfig(name="metasgd", options={"form": "free"})).rule.form
        == "free"
    )
    with pytest.raises(
        ValueError,
        match=r"geometry\.options\.from is not a known key of 'metasgd'; did you mean 'form'",
    ):
        construct(geometries, GeometryConfig(name="metasgd", options={"from": "free"}))
