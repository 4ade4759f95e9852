"""Where requests wait and where they go: a real loop and a real load table, no process and no sleeping."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from autoglm_serve.core.fleet import FleetView, ModelView, ReplicaView
from autoglm_serve.core.model import Capability
from autoglm_serve.core.refusal import Refusal
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.gateway.routing.load import LoadTable
from autoglm_serve.gateway.routing.router import Reservation, Router
from autoglm_serve.route import retry_budget
from autoglm_serve.route.breaker import FAILURES
from autoglm_serve.route.scheduler import Bounds, RoutingRequest, Setback
from autoglm_serve.runtime.observable import Observable

CHAT = ModelView(names=("chat",), capabilities=frozenset({Capability.CHAT}))
SPEECH = ModelView(names=("speech",), capabilities=frozenset({Capability.TRANSCRIPTION}), on_demand=True)
READY, WAITING, STOPPED = ReplicaState.READY, ReplicaState.WAITING, ReplicaState.STOPPED


def replica(
    slot: int, state: ReplicaState = READY, *, model: str = "chat", **limits: int | None
) -> ReplicaView:
    return ReplicaView(
        id=f"r{slot}",
        slot=slot,
        model=model,
        engine="faulty",
        state=state,
        base_url=f"http://{slot}",
        capacity_requests=limits.get("requests"),
        capacity_tokens=limits.get("tokens"),
    )


@dataclass
class World:
    """A router, its fleet, and what has been placed, in order."""

    router: Router
    fleet: Observable[FleetView]
    load: LoadTable
    woken: list[str]
    placed: list[str] = field(default_factory=list)
    reservations: dict[str, Reservation] = field(default_factory=dict)

    def have(self, *replicas: ReplicaView) -> None:
        self.fleet.replace(FleetView(version=1, models=(CHAT, SPEECH), replicas=replicas))

    async def place(
        self, wanted: RoutingRequest, *, ready_s: float = 60.0, turn_s: float = 60.0
    ) -> Reservation:
        reservation = await self.router.place(wanted, wait_ready_s=ready_s, wait_turn_s=turn_s)
        assert reservation is not None
        return reservation

    async def ask(self, name: str, wanted: RoutingRequest) -> asyncio.Task[None]:
        """A request by name that is under way: placed, or waiting."""

        async def run() -> None:
            self.reservations[name] = await self.place(wanted)
            self.placed.append(name)

        task = asyncio.create_task(run())
        await settled()
        return task

    async def end(self, name: str) -> None:
        """The replica is done with it."""
        self.reservations.pop(name).release()
        await settled()

    def in_flight(self) -> tuple[int, int]:
        slots = range(4)
        return sum(map(self.load.requests, slots)), sum(map(self.load.cost_tokens, slots))


def a_request(
    client: str = "a", cost_tokens: int = 10, model: ModelView = CHAT, size_bytes: int = 0
) -> RoutingRequest:
    return RoutingRequest(
        model=model, cost_tokens=cost_tokens, client=client, holder=client, size_bytes=size_bytes
    )


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


Run = Callable[[Callable[[World], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a coroutine in a world with one replica that takes one request; all must be given back."""

    def go(scenario: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            loop, woken = asyncio.get_running_loop(), list[str]()
            fleet, load = Observable(FleetView()), LoadTable(tmp_path / "loads", 0)
            router = Router(
                fleet,
                load,
                loop,
                workers=1,
                bounds=Bounds(waiting=4, waiting_bytes=100),
                wake=woken.append,
            )
            fleet.listen(router.fleet_changed)
            world = World(router, fleet, load, woken)
            world.have(replica(0, requests=1))
            await scenario(world)
            while world.reservations:
                await world.end(next(iter(world.reservations)))
            assert world.in_flight() == (0, 0)
            assert router.waiting == 0
            load.close()

        asyncio.run(main())

    return go


def test_a_request_is_counted_from_its_dispatch_to_its_end(run: Run) -> None:
    async def scenario(world: World) -> None:
        with await world.place(a_request(cost_tokens=7)):
            assert world.in_flight() == (1, 7)
        assert world.in_flight() == (0, 0)

    run(scenario)


def test_clients_take_turns_whoever_asks_more(run: Run) -> None:
    async def scenario(world: World) -> None:
        for name in ("a0", "a1", "a2", "a3", "b1"):
            await world.ask(name, a_request(client=name[0]))
        for name in ("a0", "a1", "b1", "a2"):
            await world.end(name)
        assert world.placed == ["a0", "a1", "b1", "a2", "a3"]

    run(scenario)


def test_a_replica_takes_no_more_tokens_than_its_cache_holds_but_anything_when_idle(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.have(replica(0, tokens=100))
        await world.ask("large", a_request(cost_tokens=500))
        await world.ask("next", a_request(cost_tokens=60))
        assert world.placed == ["large"]
        await world.end("large")
        await world.ask("too much", a_request(cost_tokens=50))
        await world.ask("small, but behind", a_request(cost_tokens=10))  # else the large would starve
        assert world.placed == ["large", "next"]
        await world.end("next")
        assert world.placed == ["large", "next", "too much", "small, but behind"]

    run(scenario)


def test_the_queue_is_bounded_by_count_and_says_when_to_come_back(run: Run) -> None:
    async def scenario(world: World) -> None:
        for number in range(5):
            await world.ask(str(number), a_request(cost_tokens=100))
        with pytest.raises(Refusal) as refused:
            await world.place(a_request())
        assert (refused.value.status, refused.value.code) == (429, "queue_full")
        assert refused.value.retry_after_s == 5  # nothing was finished yet: a guess
        for number in range(5):
            await world.end(str(number))
        for number in range(5):
            await world.ask(str(number), a_request(cost_tokens=98))
        with pytest.raises(Refusal) as refused:
            await world.place(a_request())
        # 500 tokens were done in what counts as ten seconds; 392 wait.
        assert refused.value.retry_after_s == 8
        for number in range(5):
            await world.end(str(number))

    run(scenario)


def test_the_queue_is_bounded_by_the_bytes_that_wait_in_it(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.ask("runs", a_request(size_bytes=1000))
        await world.ask("waits", a_request(size_bytes=99))
        with pytest.raises(Refusal) as refused:
            await world.place(a_request(size_bytes=2))
        assert refused.value.code == "queue_full"
        await world.ask("fits", a_request(size_bytes=1))
        await world.end("runs")
        await world.end("waits")
        await world.ask("alone it may be larger", a_request(size_bytes=1000))
        leaver = await world.ask("leaves", a_request())
        leaver.cancel()
        await settled()
        await world.end("fits")

    run(scenario)


def test_waiting_for_a_turn_ends_in_503(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.ask("runs", a_request())
        with pytest.raises(Refusal) as refused:
            await world.place(a_request(), turn_s=0)
        assert (refused.value.status, refused.value.code) == (503, "queue_timeout")
        assert refused.value.retry_after_s

    run(scenario)


@pytest.mark.parametrize(("state", "retry_after_s"), [(WAITING, 2), (ReplicaState.FAILED, 30)])
def test_without_a_ready_replica_the_refusal_tells_the_fleets_state(
    run: Run, state: ReplicaState, retry_after_s: int
) -> None:
    async def scenario(world: World) -> None:
        world.have(replica(0, state), replica(1, state))
        with pytest.raises(Refusal) as refused:
            await world.place(a_request(), ready_s=0)
        assert (refused.value.status, refused.value.code) == (503, "no_replica_ready")
        assert f"r0 {state}, r1 {state}" in refused.value.message
        assert refused.value.retry_after_s == retry_after_s

    run(scenario)


def test_it_waits_for_a_replica_to_come_back(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.have(replica(0, WAITING))
        await world.ask("patient", a_request())
        assert world.placed == []
        world.have(replica(0))
        await settled()
        assert world.placed == ["patient"]

    run(scenario)


def test_waiting_ends_at_once_when_no_replica_will_come(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.have(replica(0, WAITING))
        task = await world.ask("hopeful", a_request())
        world.have(replica(0, ReplicaState.FAILED))
        await settled()
        with pytest.raises(Refusal):
            await task

    run(scenario)


def test_an_alarm_that_is_overdue_is_set_on_the_workers_own_loop_too(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        fleet, load = Observable(FleetView()), LoadTable(tmp_path / "loads", 0)
        bounds = Bounds(waiting=4, waiting_bytes=100)
        router = Router(fleet, load, loop, workers=1, bounds=bounds, wake=lambda model: None)
        fleet.replace(FleetView(version=1, models=(CHAT,), replicas=(replica(0, WAITING),)))
        router.fleet_changed(fleet.value)
        for _ in range(2):
            waiting = [asyncio.ensure_future(outcome(router)) for _ in range(3)]
            assert await asyncio.gather(*waiting) == 3 * ["no_replica_ready"]

    async def outcome(router: Router) -> str:
        with pytest.raises(Refusal) as refused:
            await router.place(a_request(), wait_ready_s=-1.0, wait_turn_s=60)
        return refused.value.code

    uvloop.run(main())


def test_a_client_that_leaves_the_queue_takes_nothing_with_it(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.ask("runs", a_request())
        leaver = await world.ask("leaves", a_request())
        await world.ask("stays", a_request())
        leaver.cancel()
        await settled()
        await world.end("runs")
        assert world.placed == ["runs", "stays"]

    run(scenario)


def test_one_that_leaves_at_the_moment_of_its_turn_gives_it_to_the_next(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.ask("runs", a_request())
        leaver = await world.ask("leaves", a_request())
        await world.ask("stays", a_request())
        world.reservations.pop("runs").release()  # its future is set, its task has not run yet
        leaver.cancel()
        await settled()
        assert world.placed == ["runs", "stays"]

    run(scenario)


def test_a_stream_that_lost_its_replica_goes_first_and_beyond_the_capacity(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.ask("runs", a_request())
        await world.ask("waits", a_request())
        begun = a_request()._replace(begun=True).lost_by("http://9", 0.0)
        await world.ask("goes on", begun)
        assert world.placed == ["runs", "goes on"]

    run(scenario)


def test_one_that_waits_for_a_successor_holds_up_nobody_else(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.have(replica(0, requests=4))
        lost = a_request().lost_by("http://0", asyncio.get_running_loop().time())
        await world.ask("waits for another", lost)  # it lost its connection; the replica may be well
        await world.ask("new", a_request())
        assert world.placed == ["new"]
        world.have(replica(0, requests=4), replica(1))
        await settled()
        assert world.placed == ["new", "waits for another"]

    run(scenario)


def test_a_model_that_is_still_loading_holds_up_no_other_model(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.have(replica(0), replica(1, STOPPED, model="speech"))
        await world.ask("speaks", a_request(model=SPEECH))
        assert world.woken
        await world.ask("writes", a_request())
        assert world.placed == ["writes"]
        world.have(replica(0), replica(1, model="speech"))
        await settled()
        assert world.placed == ["writes", "speaks"]

    run(scenario)


def test_a_replica_that_failed_a_request_does_not_get_it_again(run: Run) -> None:
    async def scenario(world: World) -> None:
        refused = a_request()._replace(tried={"http://0": Setback()})
        assert await world.router.place(refused, wait_ready_s=60, wait_turn_s=60) is None

    run(scenario)


async def who_serves(world: World) -> set[str]:
    """The replicas of four requests in turn."""
    seen = set()
    for _ in range(4):
        with await world.place(a_request()) as reservation:
            seen.add(reservation.replica.id)
    return seen


def test_a_replica_that_fails_repeatedly_is_left_alone_and_a_success_forgives(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.have(replica(0), replica(1))
        bad = replica(0)
        for _ in range(FAILURES):
            world.router.report(bad.base_url, good=False)
        assert await who_serves(world) == {"r1"}
        world.router.report(bad.base_url, good=True)
        assert await who_serves(world) == {"r0", "r1"}

    run(scenario)


def test_with_every_breaker_open_a_doubtful_replica_is_asked(run: Run) -> None:
    async def scenario(world: World) -> None:
        for _ in range(FAILURES):
            world.router.report(replica(0).base_url, good=False)
        with await world.place(a_request()) as reservation:
            assert reservation.replica.id == "r0"

    run(scenario)


def test_a_new_process_starts_with_a_closed_breaker(run: Run) -> None:
    async def scenario(world: World) -> None:
        for _ in range(FAILURES):
            world.router.report(replica(0).base_url, good=False)
        world.have(replace(replica(0), base_url="http://new"), replica(1))
        world.have(replica(0), replica(1))
        assert await who_serves(world) == {"r0", "r1"}

    run(scenario)


def test_retries_are_bounded_and_requests_earn_them(run: Run) -> None:
    async def scenario(world: World) -> None:
        spent = 0
        while world.router.may_retry(a_request()):
            spent += 1
        assert spent >= retry_budget.MOST
        for _ in range(20):
            with await world.place(a_request()):
                pass
        assert world.router.may_retry(a_request())
        assert world.router.may_retry(a_request())

    run(scenario)
