"""Every benchmark runs and prints the figures it promises. Their numbers are not looked at."""

import asyncio
import json
import shutil
import sys
from typing import Any

import pytest

pytest.importorskip("psutil", reason="the extra `bench` is not installed")

MACHINE = {"cpu", "cores", "system", "python", "load_average", "packages"}
FIGURES = {
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
    "hub": {
        "hub_cpu_us_per_claim",
        "hub_cpu_us_per_sold_out",
        "hub_cpu_us_per_held",
        "picows_echo_cpu_us",
        "websockets_echo_cpu_us",
        "starlette_echo_cpu_us",
        "ratio_to_picows_echo",
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
        "strict_accepted_per_s",
        "strict_burst_accepted_per_s",
        "strict_server_cpu_us_per_accepted",
        "strict_confirm_p99_ms",
    },
    "orders": {
        "persisted_per_s",
        "worker_cpu_us_per_order",
        "redis_cpu_us_per_order",
        "postgres_cpu_us_per_order",
        "strict_persisted_per_s",
    },
    "script": {"redis_us_accept_1", "redis_us_known_128", "call_us_sold_out_512"},
}

WITH_COMPILER = {  # what more `fanout` finds where C can be compiled
    "floor_cpu_us_per_frame",
    "ratio_to_floor",
    "cpu_us_per_frame_10k",
    "ratio_to_floor_10k",
    "ratio_to_picows_10k",
}
NEEDS_COMPILER = {"room", "slow", "storm"}  # their crowds are a program in C


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


@pytest.mark.timeout(300)  # `slow` waits for every rung of the ladder: 40 s on a calm machine
@pytest.mark.parametrize("name", FIGURES)
async def test_bench_in_quick_mode_prints_one_object_with_its_figures(name: str) -> None:
    can_compile = shutil.which("cc") is not None
    status, out, err = await livesale_bench(name, "--json", "--quick")
    if name in NEEDS_COMPILER and not can_compile:
        assert status == 1
        assert "no C compiler" in err
        return
    assert status == 0, err
    printed: dict[str, Any] = json.loads(out)
    wanted = FIGURES[name]
    if name == "fanout" and can_compile:
        wanted = wanted | WITH_COMPILER
    assert printed["bench"] == name
    assert wanted <= printed["figures"].keys()
    assert all(isinstance(value, float) for value in printed["figures"].values())
    assert printed["machine"].keys() >= MACHINE


async def test_bench_list_names_every_benchmark() -> None:
    status, out, _ = await livesale_bench("list")
    assert status == 0
    assert set(out.split()) == {*FIGURES, "joins"}


async def test_bench_of_an_unknown_name_is_a_usage_error() -> None:
    status, out, err = await livesale_bench("nonsense")
    assert status == 2
    assert out == ""
    assert "nonsense" in err
