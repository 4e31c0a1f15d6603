"""Every benchmark runs and prints the figures it promises. Their numbers are not looked at."""

import asyncio
import json
import shutil
import sys
from typing import Any

import pytest

pytest.importorskip("psutil", reason="the extra `bench` is not installed")

MACHINE = {"cpu", "cores", "system", "python", "load_average", "packages"}
TABLE = {  # what `table` runs: benchmark -> figures
    "fanout": {
        "cpu_us_per_frame",
        "user_cpu_us_per_frame",
        "websockets_cpu_us_per_frame",
        "picows_cpu_us_per_frame",
        "starlette_cpu_us_per_frame",
        "ratio_to_websockets",
        "ratio_to_picows",
        "rss_kb_per_viewer",
        "cpu_us_per_join",  # these two by the benchmark `joins`, which is a part of it
    },
    "hub": {
        "hub_cpu_us_per_claim",
        "hub_cpu_us_per_sold_out",
        "hub_cpu_us_per_held",
        "picows_echo_cpu_us",
        "websockets_echo_cpu_us",
        "starlette_echo_cpu_us",
        "ratio_to_picows_echo",
    },
    "compression": {"bytes_per_frame", "deflate_bytes_per_frame", "deflate_cpu_us_per_frame"},
}
WITH_COMPILER = {  # what more it finds where C can be compiled: crowds and the floor are in C
    "fanout": {
        "floor_cpu_us_per_frame",
        "ratio_to_floor",
        "cpu_us_per_frame_10k",
        "ratio_to_floor_10k",
        "ratio_to_picows_10k",
        "rush_s",
        "websockets_rush_s",
    },
    "room": {
        "stale_p99_ms",
        "reply_p99_ms",
        "loop_lag_max_ms",
        "web_waited_share",
        "per_message_delivered_share",
        "per_message_lag_growth",
    },
    "slow": {
        "age_p99_change_percent",
        "closed_after_s",
        "dozers_folded_share",
        "laggards_frames_per_s",
        "rss_growth_kb_per_slow_viewer",
        "websockets_rss_kb_per_slow_viewer",
    },
    "storm": {"all_back_s", "refused", "age_p99_before_ms", "age_p99_during_ms"},
    "processes": {
        "one_cpu_us_per_frame",
        "two_cpu_us_per_frame",
        "ratio_of_two_to_one",
        "redis_commands_ratio",
        "redis_bytes_in_ratio",
        "redis_bytes_out_ratio",
        "redis_2_hubs_commands_per_s_many",
    },
    "opening": {
        "clock_error_p99_ms",
        "guess_error_p99_ms",
        "open_spread_p99_ms",
        "told_spread_p99_ms",
        "told_too_late_of_the_sale",
    },
}
FIGURES = {  # of the benchmarks that run alone
    "soak": {
        "web_rss_growth_percent_in_10_min",
        "worker_rss_growth_percent_in_10_min",
        "web_descriptors_growth_in_10_min",
        "web_tasks_growth_in_10_min",
        "redis_bytes_per_claim",
        "flat",
    },
    "claim": {
        "accepted_per_s",
        "burst_accepted_per_s",
        "burst_persisted_per_s",
        "evaluated_per_s",
        "sold_out_per_s",
        "server_cpu_us_per_accepted",
        "web_cpu_us_per_accepted",
        "worker_cpu_us_per_accepted",
        "redis_cpu_us_per_accepted",
        "postgres_cpu_us_per_accepted",
        "loader_cpu_us_per_accepted",
        "confirm_p99_ms",
        "stale_p99_ms",
    },
    "orders": {
        "strict_persisted_per_s",
        "strict_worker_cpu_us_per_order",
        "strict_redis_cpu_us_per_order",
        "strict_postgres_cpu_us_per_order",
    },
    "script": {"redis_us_accept_1", "redis_us_known_128", "call_us_sold_out_512"},
}


async def livesale_bench(*arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `livesale bench ...`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server.cli", "bench", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def quick(name: str) -> dict[str, Any]:
    """What a benchmark prints in quick mode."""
    status, out, err = await livesale_bench(name, "--json", "--quick")
    assert status == 0, err
    printed: dict[str, Any] = json.loads(out)
    assert printed["bench"] == name
    assert all(isinstance(value, float) for value in printed["figures"].values())
    assert printed["machine"].keys() >= MACHINE
    return printed


@pytest.mark.timeout(300)  # of a minute on a calm machine
async def test_bench_table_in_quick_mode_has_a_row_for_every_goal_and_all_figures() -> None:
    printed = await quick("table")
    wanted = {f"{bench}.{figure}" for bench in TABLE for figure in TABLE[bench]}
    not_measured = {row[0] for row in printed["rows"] if row[2] == "not measured"}
    if shutil.which("cc") is not None:
        wanted |= {f"{bench}.{name}" for bench in WITH_COMPILER for name in WITH_COMPILER[bench]}
        assert not not_measured, printed["notes"]
    else:
        assert any("no C compiler" in note for note in printed["notes"])
    assert wanted <= printed["figures"].keys(), printed["notes"]
    assert len(printed["rows"]) > len(TABLE | WITH_COMPILER)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", FIGURES)
async def test_bench_in_quick_mode_prints_one_object_with_its_figures(name: str) -> None:
    printed = await quick(name)
    assert FIGURES[name] <= printed["figures"].keys()


async def test_bench_list_names_every_benchmark() -> None:
    status, out, _ = await livesale_bench("list")
    assert status == 0
    # `rehearsal` plays a whole one: its parts are tested in test_rehearsals.py.
    alone = {"table", "joins", "rehearsal"}
    assert set(out.split()) == {*alone, *TABLE, *WITH_COMPILER, *FIGURES}


async def test_bench_minutes_for_another_benchmark_than_soak_is_a_usage_error() -> None:
    status, _, err = await livesale_bench("joins", "--minutes", "3")
    assert status == 2
    assert "soak" in err


async def test_bench_of_an_unknown_name_is_a_usage_error() -> None:
    status, out, err = await livesale_bench("nonsense")
    assert status == 2
    assert out == ""
    assert "nonsense" in err
