"""The scheduler's laws: one outcome each, fair turns, no replica above what it holds, cost back to zero."""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from autoglm_serve.core.fleet import ModelView, ReplicaView
from autoglm_serve.core.model import Capability
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.route.fair_queue import TURNS_IN_A_ROUND
from autoglm_serve.route.load_order import Verdict
from autoglm_serve.route.retry_budget import MOST, OPINIONS
from autoglm_serve.route.scheduler import (
    AGAIN_MOST_S,
    AGAIN_S,
    LEAVING_S,
    MAY_BECOME_READY,
    REFUSING_S,
    WAKE_EVERY_S,
    WORTH_KEEPING_TOKENS,
    Bounds,
    Effect,
    Exhausted,
    LeftAlone,
    Placed,
    Rejected,
    RoutingRequest,
    Scheduler,
    Wake,
)
from tests.route.naive_choice import Candidate, choose

CHAT = ModelView(names=("chat",), capabilities=frozenset({Capability.CHAT}))
SPEECH = ModelView(names=("speech",), capabilities=frozenset({Capability.TRANSCRIPTION}), on_demand=True)
READY, WAITING, STOPPED = ReplicaState.READY, ReplicaState.WAITING, ReplicaState.STOPPED
PATIENCE_S = 60.0


def replica(
    slot: int,
    state: ReplicaState = READY,
    *,
    model: str = "chat",
    run: int = 0,
    requests: int | None = None,
    tokens: int | None = None,
) -> ReplicaView:
    return ReplicaView(
        id=f"r{slot}",
        slot=slot,
        model=model,
        engine="e",
        state=state,
        base_url=f"http://{slot}.{run}",
        capacity_requests=requests,
        capacity_tokens=tokens,
    )


def request(
    client: str = "a",
    cost_tokens: int = 10,
    model: ModelView = CHAT,
    holder: str | None = None,
    size: int = 0,
) -> RoutingRequest:
    return RoutingRequest(
        model=model, cost_tokens=cost_tokens, client=client, holder=holder or client, size_bytes=size
    )


class Desk:
    """A scheduler at a time that the test sets, and what became of each ticket."""

    def __init__(self, *replicas: ReplicaView, waiting: int = 100) -> None:
        self.now_s = 100.0
        self.scheduler = Scheduler(Bounds(waiting=waiting, waiting_bytes=1 << 20), self.now_s)
        self.outcomes: dict[int, Placed | Rejected | Exhausted] = {}
        self.others: list[Effect] = []
        self.tickets = 0
        self.have(*replicas)

    def have(self, *replicas: ReplicaView, gone: Iterable[ReplicaView] = ()) -> None:
        self.take(self.scheduler.fleet_changed(replicas, gone, self.now_s))

    def ask(self, wanted: RoutingRequest, *, ready_s: float = PATIENCE_S, turn_s: float = PATIENCE_S) -> int:
        self.tickets += 1
        self.take(self.scheduler.ask(self.tickets, wanted, self.now_s, ready_s=ready_s, turn_s=turn_s))
        return self.tickets

    def end(self, ticket: int) -> None:
        self.take(self.scheduler.end(ticket, self.now_s))

    def after(self, seconds: float) -> None:
        self.now_s += seconds
        self.take(self.scheduler.tick(self.now_s))

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Placed | Rejected | Exhausted):
                assert effect.ticket not in self.outcomes, "a request has one outcome"
                self.outcomes[effect.ticket] = effect
            else:
                self.others.append(effect)

    def where(self, ticket: int) -> str | None:
        outcome = self.outcomes.get(ticket)
        return outcome.replica.base_url if isinstance(outcome, Placed) else None

    def code(self, ticket: int) -> str | None:
        outcome = self.outcomes.get(ticket)
        return outcome.code if isinstance(outcome, Rejected) else None


def step(desk: Desk, client: str, cost_tokens: int = WORTH_KEEPING_TOKENS) -> str | None:
    """One request, from begin to end."""
    ticket = desk.ask(request(client, cost_tokens=cost_tokens))
    desk.end(ticket)
    return desk.where(ticket)


def test_an_agents_next_step_goes_where_the_beginning_of_it_is_still_held() -> None:
    desk = Desk(replica(0), replica(1))
    first = {client: step(desk, client) for client in "ab"}
    assert set(first.values()) == {"http://0.0", "http://1.0"}
    for _ in range(3):
        for client, where in first.items():
            assert step(desk, client) == where


def test_short_requests_use_an_idle_fleet_in_turn() -> None:
    desk = Desk(replica(0), replica(1))
    assert len({step(desk, "a", WORTH_KEEPING_TOKENS - 1) for _ in range(2)}) == 2


def test_a_beginning_that_is_held_is_worth_no_wait_behind_others() -> None:
    desk = Desk(replica(0), replica(1))
    held = step(desk, "a")
    for other in [desk.ask(request("b")) for _ in range(2)]:
        if desk.where(other) != held:
            desk.end(other)
    assert step(desk, "a") != held


def test_a_beginning_that_is_held_is_looked_for_in_no_other_model() -> None:
    desk = Desk(replica(0), replica(1), replica(2, model="speech"))
    step(desk, "a")
    ticket = desk.ask(request("a", cost_tokens=WORTH_KEEPING_TOKENS, model=SPEECH))
    assert desk.where(ticket) == "http://2.0"


def test_one_whose_only_address_lost_it_asks_there_again_after_a_moment() -> None:
    desk = Desk(replica(0))
    ticket = desk.ask(request().lost_by("http://0.0", desk.now_s))
    desk.after(AGAIN_S / 2)
    assert ticket not in desk.outcomes
    desk.after(AGAIN_S / 2)
    assert desk.where(ticket) == "http://0.0"


def test_the_moment_grows_with_every_loss_there_up_to_a_bound() -> None:
    lost, waits = request(), []
    for _ in range(6):
        lost = lost.lost_by("http://0.0", 0.0)
        waits.append(lost.tried["http://0.0"].again_s)
    assert waits[:3] == [AGAIN_S, 2 * AGAIN_S, 4 * AGAIN_S]
    assert waits[-1] == AGAIN_MOST_S


def test_nobody_asks_an_address_again_while_another_replica_can_take_it() -> None:
    desk = Desk(replica(0), replica(1, requests=1))
    runs = desk.ask(request(cost_tokens=1000))
    desk.end(runs)
    holds = desk.ask(request())
    assert desk.where(holds) == "http://1.0"
    lost = desk.ask(request().lost_by("http://0.0", desk.now_s))
    desk.after(2 * AGAIN_S)  # r1 is at its capacity; it is waited for
    assert lost not in desk.outcomes
    desk.end(holds)
    assert desk.where(lost) == "http://1.0"


def test_one_that_an_engine_has_answered_waits_for_nobody() -> None:
    desk = Desk(replica(0), replica(1, WAITING))
    answered = desk.ask(request().refused_by("http://0.0", answered=True))
    assert isinstance(desk.outcomes[answered], Exhausted)
    not_now = desk.ask(request().refused_by("http://0.0"))
    assert not_now not in desk.outcomes
    desk.have(replica(1))
    assert desk.where(not_now) == "http://1.0"


@pytest.mark.parametrize("begun", [False, True])
def test_a_lost_request_of_a_model_on_demand_waits_for_its_replica_to_come_back(begun: bool) -> None:
    desk = Desk(replica(0, model="speech"))
    lost = request(model=SPEECH)._replace(begun=begun).lost_by("http://0.0", desk.now_s)
    ticket = desk.ask(lost)
    for state in (WAITING, ReplicaState.STARTING):
        desk.have(replace(replica(0, state, model="speech"), base_url=""))
        desk.after(5.0)
    assert ticket not in desk.outcomes
    desk.have(replica(0, model="speech", run=1))
    assert desk.where(ticket) == "http://0.1"


def test_what_is_gone_for_good_is_not_waited_for() -> None:
    desk = Desk(replica(0))
    ticket = desk.ask(request().lost_by("http://0.0", desk.now_s))
    desk.have(replace(replica(0, ReplicaState.FAILED), base_url=""))
    assert isinstance(desk.outcomes[ticket], Exhausted)
    assert desk.code(desk.ask(request())) == "no_replica_ready"


def test_a_sleeping_model_is_called_again_and_again_as_the_call_may_be_lost() -> None:
    desk = Desk(replica(0, STOPPED, model="speech"))
    desk.ask(request(model=SPEECH))
    desk.ask(request(model=SPEECH))
    assert desk.others == [Wake(model="speech")]
    for _ in range(25):
        desk.after(WAKE_EVERY_S / 10)
    assert desk.others == 3 * [Wake(model="speech")]


def test_a_model_that_goes_to_rest_as_it_is_asked_for_is_called_at_once() -> None:
    desk = Desk(replica(0, ReplicaState.STOPPING, model="speech"))
    desk.ask(request(model=SPEECH))
    desk.others.clear()
    desk.have(replace(replica(0, STOPPED, model="speech"), base_url=""))
    assert desk.others == [Wake(model="speech")]


def test_what_other_workers_carry_counts_in_the_choice_and_in_the_capacity() -> None:
    desk = Desk(replica(0, requests=2), replica(1, requests=2))
    desk.scheduler.others_carry(0, 1, 5000, desk.now_s)
    assert desk.where(desk.ask(request())) == "http://1.0"
    assert desk.where(desk.ask(request())) == "http://1.0"
    last, waits = desk.ask(request()), desk.ask(request())
    assert (desk.where(last), waits in desk.outcomes) == ("http://0.0", False)
    desk.scheduler.others_carry(0, 0, 0, desk.now_s)
    desk.after(0.1)
    assert desk.where(waits) == "http://0.0"


def test_a_replica_that_fails_repeatedly_is_said_once_to_be_left_alone() -> None:
    desk = Desk(replica(0), replica(1))
    for _ in range(5):
        desk.take(desk.scheduler.report("http://0.0", desk.now_s, good=False))
    assert desk.others == [LeftAlone(replica=replica(0), reason="has failed repeatedly")]
    assert not desk.scheduler.another_for(request(), "http://1.0", desk.now_s)
    assert {desk.where(desk.ask(request(cost_tokens=1000))) for _ in range(4)} == {"http://1.0"}


def test_a_replica_that_says_it_is_going_down_is_asked_only_where_there_is_no_other_for_a_while() -> None:
    desk = Desk(replica(0), replica(1, requests=1))
    for _ in range(2):
        desk.take(desk.scheduler.leaves("http://0.0", desk.now_s))
    assert desk.others == [LeftAlone(replica=replica(0), reason="says that it is going down")]
    last = desk.ask(request(cost_tokens=5000))
    assert desk.where(last) == "http://1.0"
    waits = desk.ask(request())  # for r1, which is well
    assert waits not in desk.outcomes
    desk.have(replica(1, WAITING))
    assert desk.where(waits) == "http://0.0"
    desk.have(replica(1))
    desk.after(LEAVING_S)
    assert desk.where(desk.ask(request())) == "http://0.0"


def test_a_request_that_two_engines_have_answered_with_an_error_is_asked_of_no_third() -> None:
    desk = Desk(replica(0), replica(1), replica(2))
    once = request().refused_by("http://0.0", answered=True)
    assert desk.where(desk.ask(once)) is not None
    assert isinstance(desk.outcomes[desk.ask(once.refused_by("http://1.0", answered=True))], Exhausted)
    elsewhere = request().refused_by("http://0.0").refused_by("http://1.0")  # those could not serve it
    assert desk.where(desk.ask(elsewhere)) == "http://2.0"


def test_second_opinions_on_errors_spend_nothing_that_a_loss_needs() -> None:
    desk, opinions = Desk(replica(0)), 0
    answered = request().refused_by("http://0.0", answered=True)
    while desk.scheduler.may_retry(answered, desk.now_s):
        opinions += 1
    assert opinions == OPINIONS
    lost = request().lost_by("http://0.0", desk.now_s)
    assert all(desk.scheduler.may_retry(lost, desk.now_s) for _ in range(int(MOST)))


def test_where_nobody_listens_nobody_is_sent_while_there_is_another() -> None:
    desk = Desk(replica(0), replica(1))
    desk.take(desk.scheduler.refuses("http://0.0", desk.now_s))
    assert [each.replica.id for each in desk.others if isinstance(each, LeftAlone)] == ["r0"]
    assert {desk.where(desk.ask(request())) for _ in range(4)} == {"http://1.0"}
    desk.after(REFUSING_S)
    assert desk.where(desk.ask(request())) == "http://0.0"


def test_who_said_that_it_leaves_is_left_alone_no_less_for_a_refused_connection() -> None:
    desk = Desk(replica(0), replica(1))
    desk.take(desk.scheduler.leaves("http://0.0", desk.now_s))
    desk.take(desk.scheduler.refuses("http://0.0", desk.now_s))
    desk.after(LEAVING_S - 0.1)
    assert desk.where(desk.ask(request())) == "http://1.0"


def test_a_client_whose_requests_all_fail_leaves_the_retries_of_others_alone() -> None:
    desk = Desk(replica(0))
    spent = 0
    while desk.scheduler.may_retry(request("greedy"), desk.now_s):
        spent += 1
    assert spent == MOST
    assert desk.scheduler.may_retry(request("modest"), desk.now_s)


def test_a_slot_that_another_replica_takes_over_keeps_what_is_still_carried_there() -> None:
    desk = Desk(replica(0))
    ticket = desk.ask(request(cost_tokens=70))
    desk.have(gone=[replica(0)])
    desk.have(replica(0, run=1))
    assert desk.scheduler.load(0) == (1, 70)
    desk.end(ticket)
    assert desk.scheduler.load(0) == (0, 0)


MODELS = {"chat": CHAT, "speech": SPEECH}
SLOTS = st.integers(0, 4)


class Laws(RuleBasedStateMachine):
    """Any order of events, held against what is known of each request and each replica."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.scheduler = Scheduler(Bounds(waiting=6, waiting_bytes=1000), self.now_s)
        self.fleet: dict[int, ReplicaView] = {}
        self.elsewhere: dict[int, tuple[int, int]] = {}
        self.asked: dict[int, RoutingRequest] = {}
        self.waiting: dict[int, RoutingRequest] = {}
        self.running: dict[int, tuple[int, RoutingRequest]] = {}
        self.turns: dict[int, int] = {}
        self.failures: Counter[str] = Counter()
        self.tickets = self.turn = 0

    def outcome(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Placed():
                    wanted = self.waiting.pop(effect.ticket)
                    self.place(effect, wanted)
                case Rejected() | Exhausted():
                    wanted = self.waiting.pop(effect.ticket)
                    if isinstance(effect, Exhausted):
                        assert wanted.tried
                case Wake():
                    assert MODELS[effect.model].on_demand

    def place(self, placed: Placed, wanted: RoutingRequest) -> None:
        slot = placed.replica.slot
        assert placed.replica is self.fleet[slot]
        assert placed.replica.routable
        requests, tokens = self.carried(slot)
        if requests and not wanted.begun:
            assert placed.replica.capacity_requests is None or requests < placed.replica.capacity_requests
            capacity = placed.replica.capacity_tokens
            assert capacity is None or tokens + wanted.cost_tokens <= capacity
        if not self.failures:
            self.least(placed, wanted)
        self.turn += 1
        self.turns[slot] = self.turn
        self.running[placed.ticket] = (slot, wanted)

    def least(self, placed: Placed, wanted: RoutingRequest) -> None:
        """Nobody else who could be asked had less to do."""
        every = [
            Candidate(replica=each, requests=self.carried(slot)[0], cost_tokens=self.carried(slot)[1])
            for slot, each in self.fleet.items()
            if each.model == wanted.model.name
        ]
        verdict, best = choose(every, wanted.cost_tokens, wanted.tried, beyond=wanted.begun)
        if verdict is Verdict.FOUND:
            assert best is not None
            assert self.carried(placed.replica.slot)[1] == self.carried(best.slot)[1]

    def carried(self, slot: int) -> tuple[int, int]:
        mine = [wanted.cost_tokens for at, wanted in self.running.values() if at == slot]
        requests, tokens = self.elsewhere.get(slot, (0, 0))
        return len(mine) + requests, sum(mine) + tokens

    @rule(
        client=st.sampled_from("abc"),
        cost=st.integers(0, 40),
        model=st.sampled_from(sorted(MODELS)),
        lost=st.sets(SLOTS, max_size=2),
        refused=st.sets(SLOTS, max_size=1),
        begun=st.booleans(),
        size=st.integers(0, 400),
    )
    def ask(
        self,
        client: str,
        cost: int,
        model: str,
        lost: set[int],
        refused: set[int],
        begun: bool,
        size: int,
    ) -> None:
        self.tickets += 1
        wanted = RoutingRequest(
            model=MODELS[model],
            cost_tokens=cost,
            client=client,
            holder=client if client == "c" else "ab",
            size_bytes=size,
            begun=begun,
        )
        for slot in lost & self.fleet.keys():
            wanted = wanted.lost_by(self.fleet[slot].base_url, self.now_s)
        for slot in refused & self.fleet.keys():
            wanted = wanted.refused_by(self.fleet[slot].base_url, answered=begun)
        self.waiting[self.tickets] = self.asked[self.tickets] = wanted
        self.outcome(self.scheduler.ask(self.tickets, wanted, self.now_s, ready_s=5.0, turn_s=9.0))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[ticket]
        self.outcome(self.scheduler.end(ticket, self.now_s))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[ticket]
        self.outcome(self.scheduler.end(ticket, self.now_s))

    @rule(
        slot=SLOTS,
        state=st.sampled_from([READY, READY, READY, *ReplicaState]),
        model=st.sampled_from(sorted(MODELS)),
        run=st.integers(0, 2),
        requests=st.sampled_from([None, 1, 2]),
        tokens=st.sampled_from([None, 20, 60]),
    )
    def becomes(
        self, slot: int, state: ReplicaState, model: str, run: int, requests: int | None, tokens: int | None
    ) -> None:
        view = replica(slot, state, model=model, run=run, requests=requests, tokens=tokens)
        self.fleet[slot] = view
        self.outcome(self.scheduler.fleet_changed([view], [], self.now_s))

    @precondition(lambda self: self.fleet)
    @rule(data=st.data())
    def goes(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.fleet)))
        self.outcome(self.scheduler.fleet_changed([], [self.fleet.pop(slot)], self.now_s))

    @rule(slot=SLOTS, requests=st.integers(0, 2), cost=st.integers(0, 50))
    def others(self, slot: int, requests: int, cost: int) -> None:
        self.elsewhere[slot] = (requests, cost if requests else 0)
        self.scheduler.others_carry(slot, *self.elsewhere[slot], self.now_s)

    @rule(slot=SLOTS, good=st.booleans())
    def judge(self, slot: int, good: bool) -> None:
        if slot in self.fleet:
            self.failures[self.fleet[slot].base_url] += not good
            self.outcome(self.scheduler.report(self.fleet[slot].base_url, self.now_s, good=good))

    @rule(seconds=st.sampled_from([0.01, 0.5, 2.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.outcome(self.scheduler.tick(self.now_s))

    @invariant()
    def who_waits_is_known_and_what_is_carried_is_what_runs(self) -> None:
        assert self.scheduler.waiting == len(self.waiting)
        for slot in range(5):
            assert self.scheduler.load(slot) == self.carried(slot)

    @invariant()
    def nobody_waits_longer_than_its_deadline(self) -> None:
        alarm_s = self.scheduler.next_alarm_s
        assert not self.waiting or alarm_s is not None

    @invariant()
    def nobody_waits_for_what_cannot_come(self) -> None:
        for wanted in self.waiting.values():
            mine = [each for each in self.fleet.values() if each.model == wanted.model.name]
            asleep = wanted.model.on_demand and any(each.state is STOPPED for each in mine)
            assert asleep or any(each.routable or each.state in MAY_BECOME_READY for each in mine)

    def teardown(self) -> None:
        for ticket in [*self.running, *self.waiting]:
            self.running.pop(ticket, None)
            self.waiting.pop(ticket, None)
            self.outcome(self.scheduler.end(ticket, self.now_s))
        while self.running:
            ticket = next(iter(self.running))
            del self.running[ticket]
            self.outcome(self.scheduler.end(ticket, self.now_s))
        assert self.scheduler.waiting == 0
        for slot in range(5):
            assert self.scheduler.load(slot) == self.elsewhere.get(slot, (0, 0))


TestLaws = Laws.TestCase
TestLaws.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_who_fills_the_queue_gives_way_to_who_has_nothing_in_it() -> None:
    desk = Desk(replica(0, requests=1), waiting=4)
    runs = desk.ask(request("greedy"))
    greedy = [desk.ask(request("greedy")) for _ in range(4)]
    modest = desk.ask(request("modest"))
    assert desk.code(greedy[-1]) == "queue_full"
    rejected = desk.outcomes[greedy[-1]]
    assert isinstance(rejected, Rejected)
    assert (rejected.status, rejected.retry_after_s > 0) == (429, True)
    assert modest not in desk.outcomes
    desk.end(runs)
    desk.end(greedy[0])
    assert desk.where(modest) == "http://0.0"


def test_a_holder_has_no_more_places_than_its_share() -> None:
    desk = Desk(replica(0, requests=1), waiting=100)
    desk.ask(request("bounded"))
    waiting = [desk.ask(request("bounded")._replace(most_waiting=3)) for _ in range(5)]
    assert [desk.code(each) for each in waiting[3:]] == ["queue_full"] * 2
    assert not set(waiting[:3]) & desk.outcomes.keys()
    assert desk.ask(request("other")) not in desk.outcomes
    desk.end(waiting[0])
    assert desk.ask(request("bounded")._replace(most_waiting=3)) not in desk.outcomes


def test_made_up_keys_take_no_place_from_another_address() -> None:
    desk = Desk(replica(0, requests=1), waiting=50)
    made_up = [desk.ask(request(f"key {each}", holder="greedy")) for each in range(60)]
    modest = desk.ask(request("modest"))
    assert modest not in desk.outcomes
    assert sum(desk.code(each) == "queue_full" for each in made_up) == 10
    ended: set[int] = set()
    while modest not in desk.outcomes:
        runs = next(each for each in made_up if desk.where(each) is not None and each not in ended)
        ended.add(runs)
        desk.end(runs)
    assert len(ended) <= TURNS_IN_A_ROUND + 1


def test_who_keeps_much_gives_way_to_who_keeps_little() -> None:
    desk = Desk(replica(0, requests=1))
    desk.ask(request("greedy"))
    large = [desk.ask(request("greedy", size=300 << 10)) for _ in range(3)]
    small = desk.ask(request("modest", size=200 << 10))
    assert desk.code(large[-1]) == "queue_full"
    assert small not in desk.outcomes
    too_much = desk.ask(request("modest", size=600 << 10))
    assert desk.code(too_much) == "queue_full"
    assert desk.code(large[1]) is None


def test_one_client_with_made_up_keys_spends_one_budget() -> None:
    desk = Desk(replica(0))
    tries = [
        desk.scheduler.may_retry(request(f"key {each}", holder="greedy"), desk.now_s)
        for each in range(int(MOST) + 10)
    ]
    assert tries.count(False) == 10
    assert desk.scheduler.may_retry(request("modest"), desk.now_s)


def test_no_client_is_served_twice_while_another_waits() -> None:
    desk = Desk(replica(0, requests=1), waiting=1000)
    asked = deque(desk.ask(request(client)) for client in "a" * 30 + "b" * 10 + "c" * 5)
    left, order = Counter("a" * 30 + "b" * 10 + "c" * 5), []
    clients = dict(zip(asked, "a" * 30 + "b" * 10 + "c" * 5, strict=True))
    known: set[int] = set()
    while len(known) < len(asked):
        (ticket,) = desk.outcomes.keys() - known
        known.add(ticket)
        order.append(clients[ticket])
        desk.end(ticket)
    served: Counter[str] = Counter()
    for client in order[1:]:  # the first was placed before anybody waited
        served[client] += 1
        left[client] -= 1
        assert all(served[client] <= served[other] + 1 for other, count in left.items() if count > 0)
