"""From specs to DAGs: what is in, in which order, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.matrix import combination_name, combinations
from pipeline.plan import Kind, Plan
from pipeline.spec import MatrixSpec
from runtime.errors import InvalidInput, NotFound
from tests.support.pipeline import loaded, planned

TEXT = """
    name: shop
    images:
      app: {target: run}
      test: {extends: app, target: test}
      docs: {target: docs, push: true}
    stages:
      lint: {image: test, run: x}
      unit: {image: test, run: x, matrix: {py: ["3.11", "3.12"]}}
      smoke: {image: test, needs: [unit], services: {web: {image: app}}, run: x}
    deploy:
      staging: {services: {web: {image: app}, cache: {image: redis}}}
      quick: {needs: [lint], services: {web: {image: app}}}
      production: {needs: [staging], services: {web: {image: app}}}
    """


def names(plan: Plan) -> list[str]:
    return [node.name for node in plan.nodes]


def needs(plan: Plan, name: str) -> set[str]:
    return {edge.node for edge in plan.node(name).needs}


def test_all_stages_come_with_all_images(tmp_path: Path) -> None:
    plan = planned(loaded(tmp_path, TEXT))
    assert set(names(plan)) == {
        "image/app", "image/test", "image/docs", "stage/lint", "stage/unit (3.11)", "stage/unit (3.12)", "stage/smoke",
    }  # fmt: skip


def test_a_stage_waits_for_its_images_and_needs_and_nothing_else(tmp_path: Path) -> None:
    plan = planned(loaded(tmp_path, TEXT))
    assert needs(plan, "stage/lint") == {"image/test"}
    assert needs(plan, "stage/smoke") == {"image/test", "image/app", "stage/unit (3.11)", "stage/unit (3.12)"}


def test_one_stage_brings_only_what_it_needs(tmp_path: Path) -> None:
    assert names(planned(loaded(tmp_path, TEXT), Kind.STAGE, "lint")) == ["image/test", "stage/lint"]


@pytest.mark.parametrize("name", ["unit@3.12", "unit (3.12)"])
def test_one_combination_can_be_asked_for(tmp_path: Path, name: str) -> None:
    assert names(planned(loaded(tmp_path, TEXT), Kind.STAGE, name)) == ["image/test", "stage/unit (3.12)"]


def test_images_alone(tmp_path: Path) -> None:
    assert names(planned(loaded(tmp_path, TEXT), Kind.IMAGE, "app")) == ["image/app"]


def test_a_deploy_waits_for_all_stages_and_pushes_what_it_uses(tmp_path: Path) -> None:
    plan = planned(loaded(tmp_path, TEXT), Kind.DEPLOY, "staging")
    assert "stage/smoke" in needs(plan, "deploy/staging")
    assert "push/app" in needs(plan, "deploy/staging")
    assert "stage/smoke" in needs(plan, "push/app")
    assert "push/test" not in names(plan)
    assert "push/docs" in names(plan)


def test_a_deploy_that_names_its_needs_waits_for_those_only(tmp_path: Path) -> None:
    plan = planned(loaded(tmp_path, TEXT), Kind.DEPLOY, "quick")
    assert [name for name in names(plan) if name.startswith("stage/")] == ["stage/lint"]


def test_a_deploy_after_another_brings_that_one(tmp_path: Path) -> None:
    plan = planned(loaded(tmp_path, TEXT), Kind.DEPLOY, "production")
    assert names(plan).index("deploy/staging") < names(plan).index("deploy/production")


def test_without_tests_a_deploy_has_no_stages(tmp_path: Path) -> None:
    plan = planned(loaded(tmp_path, TEXT), Kind.DEPLOY, "staging", tests=False)
    assert not [name for name in names(plan) if name.startswith("stage/")]


def test_every_node_comes_after_what_it_needs(tmp_path: Path) -> None:
    plan = planned(loaded(tmp_path, TEXT), Kind.DEPLOY, "production")
    order = names(plan)
    for node in plan.nodes:
        assert all(order.index(edge.node) < order.index(node.name) for edge in node.needs)


@pytest.mark.parametrize(
    ("kind", "name"), [(Kind.STAGE, "smok"), (Kind.IMAGE, "ap"), (Kind.DEPLOY, "stagin")]
)
def test_an_unknown_name_is_refused_with_the_nearest(tmp_path: Path, kind: Kind, name: str) -> None:
    with pytest.raises(NotFound) as caught:
        planned(loaded(tmp_path, TEXT), kind, name)
    assert "did you mean" in caught.value.hint


def test_using_an_output_is_needing_its_stage(tmp_path: Path) -> None:
    text = "images: {a: {}}\nstages:\n  x: {image: a, run: 'echo ${stages.y.outputs.v}'}\n  y: {image: a, run: x}\n"
    assert names(planned(loaded(tmp_path, text), Kind.STAGE, "x")) == ["image/a", "stage/y", "stage/x"]


def test_a_condition_that_does_not_hold_leaves_the_node_out_and_says_why(tmp_path: Path) -> None:
    text = "images: {a: {}}\nstages:\n  x: {image: a, if: 'DAY == \"friday\"'}\n  y: {image: a, when: {env: {DAY: mon*}}}\n"
    plan = planned(loaded(tmp_path, text, {"DAY": "monday"}))
    assert plan.node("stage/x").skip == '`if: DAY == "friday"` is false'
    assert plan.node("stage/y").skip == ""
    assert plan.node("stage/y").condition == "DAY is 'monday'"


def test_from_and_until_select_by_order(tmp_path: Path) -> None:
    from pipeline.plan import Goal, plan_run

    pipeline = loaded(tmp_path, TEXT)
    after = plan_run(pipeline.spec, Goal(kind=Kind.STAGE, start="unit"), pipeline.facts)
    assert "stage/smoke" in names(after) and "stage/lint" not in names(after)
    until = plan_run(pipeline.spec, Goal(kind=Kind.STAGE, until="unit"), pipeline.facts)
    assert "stage/smoke" not in names(until)


def test_include_extends_what_fits_and_adds_what_does_not() -> None:
    matrix = MatrixSpec(
        axes=(("py", ("3.11", "3.12")), ("os", ("deb",))),
        include=((("py", "3.12"), ("extra", "x")), (("py", "3.13"), ("os", "alp"))),
        exclude=((("py", "3.11"), ("os", "none")),),
    )
    rows = [dict(row) for row in combinations(matrix)]
    assert rows == [
        {"py": "3.11", "os": "deb"},
        {"py": "3.12", "os": "deb", "extra": "x"},
        {"py": "3.13", "os": "alp"},
    ]
    assert combination_name("unit", combinations(matrix)[0]) == "unit (3.11, deb)"


def test_a_matrix_beyond_the_limit_is_refused() -> None:
    axes = tuple((name, tuple(str(n) for n in range(10))) for name in ("a", "b", "c"))
    with pytest.raises(InvalidInput, match="1000 combinations"):
        combinations(MatrixSpec(axes=axes))
