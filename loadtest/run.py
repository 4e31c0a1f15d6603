"""One run: people come, a sale opens, things break, everything is asked for, audited and told.

prepare -> join (warm-up) -> lead-in -> measured part with its faults -> settle -> audit -> report.
All instants are decided when people start to come; nothing waits for anything but the clock.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from loadtest import faults, people
from loadtest import loaders as processes
from loadtest.audit.audit import audit
from loadtest.audit.seen import Terms, seen_by
from loadtest.loaders import Loaders
from loadtest.measures.witness import Witness
from loadtest.outcome import Facts, summary_of
from loadtest.patience import Patience
from loadtest.people import US_PER_S, Plan
from loadtest.report import html
from loadtest.report.live import View
from loadtest.report.summary import Audit, Phase, Second, Summary, written
from loadtest.scenario import SaleTerms, Scenario, Usage
from loadtest.swarm.pipe import Finish, Go, NewSale, Pulse, Setup
from loadtest.target import Target

LEAD_IN_SHARE: Final = 0.05  # of the measured part, before it
LEAD_IN_MIN_S: Final = 1.0
READY_S: Final = 1.0  # loaders start, the sale is made
READY_PER_SOCKET_S: Final = 50e-6
WITNESS_S: Final = 3.0  # to subscribe
INTERRUPTED_SETTLE_S: Final = 5.0
HARVEST_S: Final = 30.0  # to fold and tell, after settling
SALE_AFTER_S: Final = 120  # a sale stays open for longer than the run
AHEAD_S: Final = 5.0  # a repeated sale is made before it opens


class Run:
    """State of a run under way.

    `sales`: sale -> t_us when it opens; `offset_us`: Redis' µs less t_us; `cpu`: (t_us, cores by
    part of the server) of each second.
    """

    def __init__(
        self, scenario: Scenario, target: Target, views: Sequence[View], stop: asyncio.Event,
        *, lang: str, name: str,
    ) -> None:  # fmt: skip
        self.scenario = scenario
        self.target = target
        self.views = views
        self.stop = stop
        self.lang = lang
        self.run = name
        self.zero_us = time.monotonic_ns() // 1000
        self.started_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.plan = Plan(0, (0, 0), 0)
        self.sales: dict[int, int] = {}
        self.offset_us = self.clock_error_us = 0
        self.cpu: list[tuple[int, dict[str, float]]] = []
        self.patience: Patience | None = None
        self.failed = False  # ended early because nothing good can come of it
        self.faults: list[faults.Done] = []
        self.finish_us = 0  # from when on nobody acts any more

    # --- Time and words -----------------------------------------------------------------------

    def now_us(self) -> int:
        """t_us of this moment."""
        return time.monotonic_ns() // 1000 - self.zero_us

    async def until_us(self, t_us: int) -> None:
        """Sleep until an instant."""
        await asyncio.sleep(max(0, t_us - self.now_us()) / US_PER_S)

    async def until_s(self, at_s: float) -> None:
        """Sleep until a second of the measured part."""
        await self.until_us(self.plan.part_us[0] + round(at_s * US_PER_S))

    def note(self, text: str) -> None:
        """Tell all who watch."""
        for view in self.views:
            view.note(text)

    def say(self, phase: Phase, *, done: float = 0.0) -> None:
        """Tell all who watch where we are, when there are no figures."""
        t_s = (self.now_us() - self.plan.part_us[0]) / US_PER_S if self.plan.part_us[1] else 0.0
        for view in self.views:
            view.pulse(Second(phase, t_s, done))

    # --- Prepare ------------------------------------------------------------------------------

    async def prepare(self, crew: Loaders) -> None:
        """A show, a sale that is yet to open, people with tokens: all loaders know who comes."""
        scenario, target = self.scenario, self.target
        await target.open_show(self.run, scenario.title.get(self.lang, scenario.name))
        clock = await target.clock()
        self.offset_us = clock.offset_us + self.zero_us
        self.clock_error_us = clock.error_us
        tokens = target.tokens(people.users(scenario, self.run))
        ready_s = READY_S + scenario.sockets * READY_PER_SOCKET_S
        self.plan = self._planned(self.now_us() + round(ready_s * US_PER_S))
        sale = price_version = 0
        if scenario.sale is not None:
            sale, price_version, t0_us = await self._open_sale(scenario.sale, self.plan.t0_us)
            self.plan = self.plan._replace(t0_us=t0_us)
        shares = people.dealt(scenario, tokens, self.plan, loaders=len(crew.all))
        for loader, share in zip(crew.all, shares, strict=True):
            loader.send(
                Setup(
                    self.run, loader.number, len(crew.all), scenario.seed, self.zero_us, share,
                    list(target.urls), target.show, sale, price_version, target.redis_url,
                    target.source_net,
                )
            )  # fmt: skip

    def _planned(self, join_us: int) -> Plan:
        scenario = self.scenario
        lead_in_s = max(LEAD_IN_MIN_S, scenario.seconds * LEAD_IN_SHARE)
        start_us = join_us + round((scenario.warmup_s + lead_in_s) * US_PER_S)
        opens_at_s = scenario.sale.opens_at_s if scenario.sale else 0.0
        return Plan(
            join_us,
            (start_us, start_us + round(scenario.seconds * US_PER_S)),
            start_us + round(opens_at_s * US_PER_S),
        )

    async def _open_sale(self, terms: SaleTerms, t0_us: int) -> tuple[int, int, int]:
        """Make a sale that opens at the next whole ms of Redis: (sale, price version, t_us)."""
        opens_at_ms = -(-(t0_us + self.offset_us) // 1000)
        duration_s = terms.repeat_every_s or self.scenario.seconds + SALE_AFTER_S
        opened = await self.target.open_sale(terms, opens_at_ms, round(duration_s))
        opens_us = opened.opens_at * 1000 - self.offset_us
        self.sales[opened.sale] = opens_us
        return opened.sale, opened.price_version, opens_us

    # --- While it runs ------------------------------------------------------------------------

    async def measure(self, crew: Loaders) -> None:
        """Join, lead-in and the measured part; ends early when `stop` is set or a loader dies."""
        async with asyncio.TaskGroup() as group:
            doings = [group.create_task(each) for each in self._doings(crew)]
            end = group.create_task(self.until_us(self.plan.part_us[1]))
            stopped = group.create_task(self.stop.wait())
            await asyncio.wait([end, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in (end, stopped, *doings):
                task.cancel()

    def _doings(self, crew: Loaders) -> list[Coroutine[Any, Any, None]]:
        scenario = self.scenario
        broken = faults.break_all(
            scenario.fault, crew, self.target.parts, scenario.seed,
            until=self.until_s, note=self.note, told=self.faults.append,
        )  # fmt: skip
        doings = [self._go(crew), self._watch(crew), broken]
        if scenario.sale is not None and scenario.sale.repeat_every_s:
            doings.append(self._repeat(crew, scenario.sale))
        return doings

    async def _go(self, crew: Loaders) -> None:
        """Everybody may act, from the lead-in on."""
        await self.until_us(self.plan.join_us + round(self.scenario.warmup_s * US_PER_S))
        crew.send(Go(self.plan.t0_us, self.plan.part_us))

    async def _repeat(self, crew: Loaders, terms: SaleTerms) -> None:
        """Another sale every so often, as long as it opens within the measured part."""
        t0_us = self.plan.t0_us
        while (t0_us := t0_us + round(terms.repeat_every_s * US_PER_S)) < self.plan.part_us[1]:
            await self.until_us(t0_us - round(AHEAD_S * US_PER_S))
            try:
                sale, price_version, opens_us = await self._open_sale(terms, t0_us)
            except Usage as error:  # a part is down: people go on with the sale they have
                self.note(str(error))
            else:
                crew.send(NewSale(sale, opens_us, price_version))

    async def _watch(self, crew: Loaders) -> None:
        """Once a second: what the loaders and the parts of the server did in it."""
        told, totals = 0, Counter(people=self.scenario.sockets)
        used, at_us = self.target.cpu_us(), self.now_us()
        while True:
            await asyncio.sleep(1)
            now, now_us = self.target.cpu_us(), self.now_us()
            cores = {
                f"cpu_{part}": max(0.0, spent - used.get(part, spent)) / (now_us - at_us)
                for part, spent in now.items()
            }
            self.cpu.append((now_us, cores))
            used, at_us = now, now_us
            fresh, told = crew.pulses[told:], len(crew.pulses)
            second = self._second(fresh, totals, cores)
            for view in self.views:
                view.pulse(second)
            self._end_if_lost(second, crew)

    def _end_if_lost(self, second: Second, crew: Loaders) -> None:
        """Nobody has to wait for the end of a run that proves nothing, or has failed already."""
        lost = "a loader died" if crew.died else ""
        if self.patience is not None:
            lost = lost or self.patience.lost(second)
        if lost and self.now_us() < self.plan.part_us[1]:
            self.note(f"ends early: {lost}")
            self.failed = True
            self.stop.set()

    def _second(
        self, fresh: Sequence[Pulse], totals: Counter[str], cores: dict[str, float]
    ) -> Second:
        """One Second of the pulses since the last one."""
        growth: Counter[str] = Counter()
        quick: dict[str, tuple[float, float]] = {}
        for pulse in fresh:
            growth.update(pulse.counts)
            for name, latest in pulse.quick.items():
                quick[name] = max(quick.get(name, latest), latest, key=lambda each: each[1])
        quick.pop("loop_lag", None)  # of the loaders, not of the server
        totals.update(growth)
        values: dict[str, float] = {**growth, **cores, "open": totals["open"]}
        values["cpu_loader"] = sum(pulse.health.cpu_share for pulse in fresh)
        phase, done = self._phase()
        t_s = (self.now_us() - self.plan.part_us[0]) / US_PER_S
        return Second(phase, t_s, done, values, dict(totals), quick)

    def _phase(self) -> tuple[Phase, float]:
        """Where we are by the clock, and what share of it is over."""
        start_us, end_us = self.plan.part_us
        lead_in_us = self.plan.join_us + round(self.scenario.warmup_s * US_PER_S)
        steps: list[tuple[Phase, int, int]] = [
            ("join", self.plan.join_us, lead_in_us),
            ("lead_in", lead_in_us, start_us),
            ("measure", start_us, end_us),
        ]
        now_us = self.now_us()
        for phase, since_us, until_us in steps:
            if now_us < until_us:
                return phase, max(0.0, (now_us - since_us) / (until_us - since_us))
        return "measure", 1.0

    @property
    def interrupted(self) -> bool:
        """Whether somebody wanted it to end before its time."""
        return self.stop.is_set() and not self.failed

    @property
    def settle_s(self) -> float:
        """How long everything may take to come to rest: whoever interrupts does not wait long."""
        asked = self.scenario.settle_s
        return min(asked, INTERRUPTED_SETTLE_S) if self.interrupted else asked

    # --- After it -----------------------------------------------------------------------------

    async def settle(self, crew: Loaders) -> None:
        """Everybody asks what became of open claims, and goes."""
        self.finish_us = self.now_us()
        self.say("settle")
        crew.send(Finish(self.finish_us + round(self.settle_s * US_PER_S)))
        await crew.over(self.settle_s + HARVEST_S)

    async def audited(self, crew: Loaders) -> Audit:
        """What people saw against the books."""
        self.say("audit")
        terms = self.scenario.sale
        made = {} if terms is None else {
            sale: Terms(terms.units, terms.limit, terms.price, pays=terms.pay_within_s > 0)
            for sale in self.sales
        }  # fmt: skip
        seen = seen_by(
            crew.harvests, run=self.run, zero_us=self.zero_us, part_us=self.plan.part_us,
            finish_us=self.finish_us, sales=made, webs_lost=faults.webs_lost(self.scenario.fault),
            faults_us=faults.windows(self.faults, self.plan.part_us[0]),
        )  # fmt: skip
        target = self.target
        return await audit(
            seen, target.redis_url, target.database_url, target.show,
            settle_s=self.settle_s,
        )  # fmt: skip


def new_name() -> str:
    """A name for a run that no other has."""
    return secrets.token_hex(3)


@asynccontextmanager
async def _witnessing(work: Run) -> AsyncIterator[Witness | None]:
    """Hear what is published, if we may ask Redis."""
    if not work.target.redis_url:
        yield None
        return
    witness = Witness(work.zero_us)
    hearing = asyncio.create_task(witness.run(work.target.redis_url, work.target.show))
    try:
        with suppress(TimeoutError):
            await asyncio.wait_for(witness.hearing.wait(), WITNESS_S)
        yield witness
    finally:
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)


async def run(
    scenario: Scenario, target: Target, views: Sequence[View], out: Path,
    *, stop: asyncio.Event | None = None, abort_on_fail: bool = False, lang: str = "en",
    name: str = "",
) -> Summary:  # fmt: skip
    """Test `target`, and write summary.json and report.html into the folder `out`.

    Setting `stop` ends it early: what is there by then is audited and told; `abort_on_fail` does so
    when it is lost (loadtest/patience.py). `name`: of the run, part of every user's; empty: made
    up. Raises Usage: the target refuses what a host may do.
    """
    work = Run(scenario, target, views, stop or asyncio.Event(), lang=lang, name=name or new_name())
    if abort_on_fail:
        work.patience = Patience(scenario.thresholds)
    async with AsyncExitStack() as stack:
        crew = await stack.enter_async_context(
            processes.started(scenario.processes, out / "loaders.log")
        )
        stack.push_async_callback(target.end_show)
        work.say("prepare")
        await work.prepare(crew)
        witness = await stack.enter_async_context(_witnessing(work))
        await work.measure(crew)
        await work.settle(crew)
        audited = await work.audited(crew)
        summary = summary_of(Facts(work, crew, witness, audited))
        work.say("report")
        (out / "summary.json").write_bytes(written(summary))
        (out / "report.html").write_text(html.page(summary, lang), "utf-8")
    for view in views:
        view.done(summary)
    return summary
