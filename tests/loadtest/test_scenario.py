"""Scenarios: the presets, files of one's own, and what is refused with which words."""

from pathlib import Path

import pytest

from loadtest import scenario as scenarios
from loadtest.scenario import Scenario, Usage

PRESETS = [
    "bots",
    "fanout-5k",
    "flash-1k",
    "herd-10k",
    "reconnect-storm",
    "slow-viewers",
    "smoke",
    "soak",
]


def test_presets_when_listed_then_all_eight() -> None:
    assert scenarios.presets() == PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_preset_when_loaded_then_it_is_named_like_its_file_and_titled_twice(name: str) -> None:
    found = scenarios.load(name)
    assert found.name == name
    assert set(found.title) == {"zh", "en"}
    assert found.thresholds


def refused(name: str = "smoke", **changes: str) -> str:
    with pytest.raises(Usage) as error:
        scenarios.load(name, {where.replace("__", "."): each for where, each in changes.items()})
    return str(error.value)


def test_load_when_the_name_is_misspelt_then_the_nearest_and_all_are_named() -> None:
    said = refused("smok")
    assert "did you mean smoke?" in said
    assert all(name in said for name in PRESETS)


def test_load_when_a_field_is_misspelt_then_the_nearest_is_named() -> None:
    assert "did you mean `count`?" in refused(crowd__0__cuont="5")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crowd__0__count": "19950"}, "20034 connections: at most 20000"),
        ({"crowd__0__count": "18500"}, "18000 for each of `rooms`"),
        ({"crowd__0__persona": '"lurker"'}, "Invalid enum value 'lurker'"),
        ({"crowd__4__sockets": "11"}, "sockets is 1 to 10"),
        ({"crowd__3__sockets": "2"}, "only a bot"),
        ({"crowd__3__pays": "0.5"}, "pay_within_s"),
        ({"crowd__3__acts": '{kind = "trace", file = "no.ms"}'}, "no such file"),
        ({"crowd__2__acts": '{kind = "poisson", per_s = 50}'}, "at most 0.8 a second"),
        ({"crowd__3__acts": '{kind = "poisson"}'}, "needs per_s"),
        ({"sale__units": "0"}, "at least 1"),
        ({"sale__opens_at_s": "10"}, "opens within"),
        ({"seconds": "700"}, "repeat_every_s"),
        ({"fault": '[{at_s = 1, kind = "kill", part = "web-2"}]'}, "there is no web-2"),
        ({"fault": '[{at_s = 1, kind = "kill", part = "redis"}]'}, "part is web-1"),
        ({"fault": '[{at_s = 1, kind = "drop"}]'}, "share"),
        ({"thresholds": '{"claim_hold.p99_ms" = "<1"}'}, "did you mean claim_held.p99_ms"),
        ({"version": "2"}, "version"),
        ({"nowhere__0__x": "1"}, "unknown field `nowhere`"),
        ({"crowd__9__count": "1"}, "no place"),
    ],
)
def test_load_when_it_cannot_be_done_then_the_reason_is_said(
    changes: dict[str, str], said: str
) -> None:
    assert said in refused(**changes)


def test_load_when_there_is_no_sale_then_nobody_can_buy(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'version = 1\nname = "mine"\nseconds = 1\n'
        'crowd = [{persona = "buyer", count = 1}, {persona = "watcher", count = 1}]\n'
    )
    assert "crowd.0 (buyer): there is nothing to buy" in refused(str(file))


def test_load_when_a_trace_stands_beside_the_file_then_it_is_found(tmp_path: Path) -> None:
    (tmp_path / "acts.ms").write_text("1\n")
    file = tmp_path / "mine.toml"
    file.write_text(
        'version = 1\nname = "mine"\nseconds = 5\nsale = {units = 1}\n'
        'crowd = [{persona = "buyer", count = 1, acts = {kind = "trace", file = "acts.ms"}}]\n'
    )
    acts = scenarios.load(str(file)).crowd[0].acts
    assert acts is not None
    assert Path(acts.file) == tmp_path / "acts.ms"


def test_load_when_it_is_no_toml_then_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_text("seconds = ")
    assert "broken.toml" in refused(str(file))


def test_load_when_shortened_then_later_faults_are_left_out() -> None:
    found: Scenario = scenarios.load("reconnect-storm", {"seconds": "15"})
    assert [fault.kind for fault in found.fault] == ["drop"]
