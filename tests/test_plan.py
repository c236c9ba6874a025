"""The plan of a run: which edits are in place when which case is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memedit.errors import ConfigError
from memedit.evaluation import EvalCase, Probe
from memedit.evaluation.datasets.probes import probe
from memedit.evaluation.plan import Group, chosen_cases, groups_of
from memory_store import Edit

CITIES = ("Lisbon", "Oslo", "Lima")


def plain(text: str) -> str:
    """Case and white space aside, worked out by itself."""
    return " ".join(text.lower().split())


def case_of(name: str, *edits: Edit, more: Sequence[Probe] = ()) -> EvalCase:
    own = [probe("edit", edit.prompt, [edit.target], of_edit=place) for place, edit in enumerate(edits)]
    return EvalCase(id=name, edits=edits, probes=(*own, *more))


def town(number: int, target: str = "Lisbon") -> Edit:
    return Edit(prompt=f"Company {number} is based in", target=target)


def towns(count: int, start: int = 0) -> list[EvalCase]:
    return [case_of(f"town-{number}", town(number)) for number in range(start, start + count)]


def traffic(name: str, text: str) -> EvalCase:
    return EvalCase(id=name, edits=(), probes=(probe("unrelated", text),))


def asked(groups: Sequence[Group]) -> list[str]:
    return [placed.case.id for group in groups for placed in group.cases]


def orders(groups: Sequence[Group]) -> list[list[str]]:
    return [[edit.prompt for edit in group.edits] for group in groups]


def held_texts(edit: Edit) -> set[str]:
    return {plain(edit.prompt), *map(plain, edit.paraphrases)}


# -- what holds of every plan ------------------------------------------------------------------------------------------

POOL = [f"Fact {number} is" for number in range(25)]


@st.composite
def made_cases(draw: st.DrawFn) -> list[EvalCase]:
    """Cases whose edits and probes share prompts now and then, some with several edits, some with none."""
    cases = []
    for number in range(draw(st.integers(0, 14))):
        prompts = draw(st.lists(st.sampled_from(POOL), max_size=4, unique=True))
        edits = tuple(
            Edit(prompt=draw(st.sampled_from([text, text.upper(), f" {text}"])), target=draw(st.sampled_from(CITIES)))
            for text in prompts
        )
        more = [probe("unrelated", draw(st.sampled_from(POOL)))]
        if edits:
            of_edit = draw(st.integers(0, len(edits) - 1))
            more.append(probe("paraphrase", draw(st.sampled_from(POOL)), [edits[of_edit].target], of_edit=of_edit))
        cases.append(case_of(f"case-{number}", *edits, more=more))
    return cases


@settings(deadline=None, max_examples=80)
@given(cases=made_cases(), edits=st.integers(1, 9), seed=st.integers(0, 5))
def test_every_plan_keeps_its_promises(cases: list[EvalCase], edits: int, seed: int) -> None:
    spare = [case_of(f"of-the-pool-{place}", Edit(prompt=text, target="Baku")) for place, text in enumerate(POOL)]
    spare += [*towns(12), case_of("several", *(town(number, "Oslo") for number in range(4, 20)))]
    groups = groups_of(cases, edits=edits, seed=seed, distractors=spare)
    assert sorted(asked(groups)) == sorted(case.id for case in cases)
    assert [group.id for group in groups] == list(range(len(groups)))
    for group in groups:
        editing = [placed for placed in group.cases if placed.case.edits]
        needed = sum(len(placed.case.edits) for placed in editing)
        assert len(group.edits) == edits or (len(editing) == 1 and len(group.edits) == needed > edits)
        # each case's edits stand together at its position, and nowhere else
        taken: set[int] = set()
        for placed in group.cases:
            places = range(placed.position, placed.position + len(placed.case.edits))
            assert tuple(group.edits[place] for place in places) == placed.case.edits
            assert taken.isdisjoint(places)
            taken |= set(places)
        # nothing in place contradicts anything else
        assert max(Counter(plain(edit.prompt) for edit in group.edits).values()) == 1
        for one in editing:
            direct = {plain(each.prompt.text) for each in one.case.probes if each.in_scope}
            others = [edit for other in editing if other is not one for edit in other.case.edits]
            assert direct.isdisjoint(plain(edit.prompt) for edit in others)
        # no distractor is what a probe asks for
        probes = {plain(each.prompt.text) for placed in group.cases for each in placed.case.probes}
        distractors = [edit for place, edit in enumerate(group.edits) if place not in taken]
        assert probes.isdisjoint(plain(edit.prompt) for edit in distractors)


@settings(deadline=None, max_examples=25)
@given(cases=made_cases(), edits=st.integers(1, 9), seed=st.integers(0, 5))
def test_the_same_settings_give_the_same_plan(cases: list[EvalCase], edits: int, seed: int) -> None:
    spare = towns(40)
    assert groups_of(cases, edits=edits, seed=seed, distractors=spare) == groups_of(
        list(cases), edits=edits, seed=seed, distractors=iter(spare)
    )


# -- groups ------------------------------------------------------------------------------------------------------------


def test_other_seeds_give_other_orders_and_other_distractors() -> None:
    cases, spare = towns(6), towns(200, start=100)
    plans = [groups_of(cases, edits=12, seed=seed, distractors=spare) for seed in range(3)]
    first = [orders(plan)[0] for plan in plans]
    assert len({tuple(order) for order in first}) == 3
    assert len({frozenset(order) for order in first}) == 3
    assert {frozenset(asked(plan)) for plan in plans} == {frozenset(case.id for case in cases)}


def test_the_edits_of_cases_and_distractors_are_mixed() -> None:
    cases = towns(10)
    (group,) = groups_of(cases, edits=40, seed=0, distractors=towns(60, start=100))
    positions = [placed.position for placed in group.cases]
    assert max(positions) >= 20 > min(positions)
    assert positions != sorted(positions)


def test_as_many_cases_as_there_are_edits_share_a_group() -> None:
    groups = groups_of(towns(20), edits=5, seed=0)
    assert [(len(group.edits), len(group.cases)) for group in groups] == [(5, 5)] * 4


def test_a_last_group_is_filled_up_with_edits_of_cases_that_are_asked_elsewhere() -> None:
    groups = groups_of(towns(7), edits=5, seed=3)
    assert [len(group.edits) for group in groups] == [5, 5]
    assert sorted(len(group.cases) for group in groups) == [2, 5]
    assert len(set(asked(groups))) == 7


def test_a_case_with_more_edits_than_asked_for_is_alone_with_its_own() -> None:
    chain = case_of("chain", *(town(number) for number in range(100, 104)))
    groups = groups_of([*towns(3), chain], edits=2, seed=0)
    (own,) = [group for group in groups if "chain" in asked([group])]
    assert own.edits == chain.edits
    assert [placed.case.id for placed in own.cases] == ["chain"]
    assert all(len(group.edits) == 2 for group in groups if group is not own)


def test_the_edits_of_a_conflict_keep_their_order() -> None:
    conflict = EvalCase(
        id="conflict",
        edits=(town(1, "Lisbon"), town(1, "Oslo")),
        probes=(probe("conflict", town(1).prompt, ["Oslo"], of_edit=1),),
    )
    for seed in range(5):
        (group,) = groups_of([conflict], edits=10, seed=seed, distractors=towns(30))
        (placed,) = group.cases
        assert group.edits[placed.position : placed.position + 2] == conflict.edits
        assert sum(edit.prompt == town(1).prompt for edit in group.edits) == 2


@pytest.mark.parametrize(
    "other",
    [
        case_of("other", Edit(prompt="company 1  IS based in", target="Oslo")),
        case_of("other", Edit(prompt="Where is company 1?", target="Oslo")),
        case_of("other", town(9), more=[probe("paraphrase", town(1).prompt, ["Oslo"], of_edit=0)]),
        case_of("other", town(9), more=[probe("alias", "Where is company 1?", ["Oslo"], of_edit=0)]),
    ],
    ids=["the same prompt", "a prompt that is a probe", "a probe that is the prompt", "the same probe"],
)
def test_cases_that_contradict_each_other_are_asked_apart(other: EvalCase) -> None:
    one = case_of("one", town(1), more=[probe("paraphrase", "Where is company 1?", ["Lisbon"], of_edit=0)])
    for seed in range(4):
        groups = groups_of([one, other], edits=2, seed=seed, distractors=towns(9, start=20))
        assert sorted(asked(groups)) == ["one", "other"]
        assert [len(group.cases) for group in groups] == [1, 1]


def test_near_misses_do_not_keep_cases_apart() -> None:
    near = probe("same_relation", town(2).prompt, ["Oslo"])
    (group,) = groups_of([case_of("one", town(1), more=[near]), case_of("two", town(2))], edits=2, seed=0)
    assert len(group.cases) == 2


@pytest.mark.parametrize("paraphrases", [(), ("Where is company 7?",)])
def test_a_distractor_that_a_probe_asks_for_is_passed_over(paraphrases: tuple[str, ...]) -> None:
    wanted = "Where is company 7?" if paraphrases else town(7).prompt
    asking = [
        case_of("near", town(1), more=[probe("same_relation", wanted.upper())]),
        case_of("far", town(2), more=[probe("one_hop", wanted, ["Portugal"], of_edit=0)]),
    ]
    spare = [
        case_of(
            "spare", Edit(prompt=town(number).prompt, target="Oslo", paraphrases=paraphrases if number == 7 else ())
        )
        for number in range(7, 14)
    ]
    for cases in ([asking[0]], [asking[1]], [towns(1)[0], traffic("traffic", wanted)]):
        for seed in range(3):
            (group,) = groups_of(cases, edits=7, seed=seed, distractors=spare)
            assert town(7).prompt not in [edit.prompt for edit in group.edits]
        with pytest.raises(ConfigError, match="give 7"):
            groups_of(cases, edits=8, seed=0, distractors=spare)


def test_a_distractor_that_contradicts_what_is_in_place_is_passed_over() -> None:
    prompts = [town(number).prompt for number in range(6)]
    spare = [
        case_of(f"{target}-{number}", Edit(prompt=prompt, target=target))
        for target in ("Oslo", "Lima")
        for number, prompt in enumerate(prompts)
    ]
    case = EvalCase(id="silent", edits=(town(0),), probes=(probe("unrelated", "who am i"),))
    for seed in range(3):
        (group,) = groups_of([case], edits=6, seed=seed, distractors=spare)
        assert sorted(edit.prompt for edit in group.edits) == prompts
        assert town(0) in group.edits
    with pytest.raises(ConfigError, match="give 6"):
        groups_of([case], edits=7, seed=0, distractors=spare)


# -- traffic -----------------------------------------------------------------------------------------------------------


def test_traffic_is_spread_over_the_groups() -> None:
    lines = [traffic(f"traffic-{number}", f"what is {number} plus one") for number in range(10)]
    groups = groups_of([*lines, *towns(8)], edits=2, seed=0)
    spread = [sum(not placed.case.edits for placed in group.cases) for group in groups]
    assert sorted(spread) == [2, 2, 3, 3]
    assert all(placed.position == 0 for group in groups for placed in group.cases if not placed.case.edits)


def test_traffic_alone_is_asked_with_distractors_in_place() -> None:
    lines = [traffic(f"traffic-{number}", f"what is {number} plus one") for number in range(3)]
    (group,) = groups_of(lines, edits=4, seed=0, distractors=towns(9))
    assert len(group.edits) == 4
    assert len(group.cases) == 3


def test_no_cases_are_no_groups() -> None:
    assert groups_of([], edits=3, seed=0, distractors=towns(9)) == []


# -- what cannot be done -----------------------------------------------------------------------------------------------


def test_too_few_edits_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"1,000 edits .* 'made:up' and the distractors give 5; .*--distractors"):
        groups_of(towns(3), edits=1000, seed=0, distractors=towns(2, start=50), where="'made:up'")


def test_no_edits_are_refused() -> None:
    with pytest.raises(ConfigError, match="edits must be at least 1; it is 0"):
        groups_of(towns(3), edits=0, seed=0)


# -- who asks for what -------------------------------------------------------------------------------------------------


def test_askers_are_the_texts_that_ask_for_an_edit_in_place() -> None:
    edit = Edit(prompt="Acme is  in", target="Lisbon", paraphrases=("Acme's seat is",))
    case = case_of(
        "one",
        edit,
        more=[
            probe("paraphrase", "Where is Acme?", ["Lisbon"], of_edit=0),
            probe("one_hop", "In which country is Acme?", ["Portugal"], of_edit=0),
            probe("same_subject", "Who founded Acme?"),
        ],
    )
    (group,) = groups_of(
        [case], edits=2, seed=0, distractors=[case_of("two", Edit(prompt="Nordwind is in", target="Oslo"))]
    )
    wanted = {("acme is in", "lisbon")}
    assert group.askers() == {
        "acme is in": wanted,
        "acme's seat is": wanted,
        "where is acme?": wanted,
        "nordwind is in": {("nordwind is in", "oslo")},
    }


# -- which cases -------------------------------------------------------------------------------------------------------


def test_cases_are_drawn_by_seed_and_stay_in_order() -> None:
    cases = towns(50)
    drawn = chosen_cases(cases, 10, seed=0)
    assert len(drawn) == 10
    assert drawn == [case for case in cases if case in drawn] == chosen_cases(tuple(cases), 10, seed=0)
    assert drawn != chosen_cases(cases, 10, seed=1)
    assert drawn != cases[:10]


@pytest.mark.parametrize("limit", [None, 50, 51])
def test_all_cases_are_taken_where_no_fewer_are_wanted(limit: int | None) -> None:
    assert chosen_cases(towns(50), limit) == towns(50)
