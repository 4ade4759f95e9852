"""Which stream has fallen silent, by the pace of its replica and a clock that a test turns."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from autoglm_serve.core.fleet import FleetView, ReplicaView
from autoglm_serve.core.refusal import Refusal
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.gateway.exchange.delivery import Delivery
from autoglm_serve.gateway.exchange.question import Question
from autoglm_serve.gateway.exchange.relay import Ending, Relay, Result
from autoglm_serve.gateway.exchange.stream_watch import StreamWatch
from autoglm_serve.gateway.recovery.answer import Expected
from autoglm_serve.gateway.recovery.seam import Seam, Splicer
from autoglm_serve.gateway.recovery.sent import read_sent
from autoglm_serve.gateway.wire.http import Headers

URL = "http://replica"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
HEADERS = ((b"content-type", b"text/event-stream"),)


class Clock:
    now_s = 100.0

    def time(self) -> float:
        return self.now_s


class Nobody:
    """A client that takes everything."""

    answering = paused = False

    def refuse(self, refusal: Refusal, headers: Headers = ()) -> None: ...

    def respond(self, status: int, headers: Headers, body: bytes) -> None: ...

    def start(self, status: int, headers: Headers, first: bytes) -> None: ...

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None: ...


class Stage:
    """A watch, and streams that a test plays."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.clock, self.watch = loop, Clock(), StreamWatch(stall_s=5.0)

    def stream(
        self, *, ahead_tokens: int = 0, may_go: bool | None = None, splicer: Seam | None = None
    ) -> "tuple[Relay, asyncio.Future[Ending]]":
        ending: asyncio.Future[Ending] = self.loop.create_future()
        relay = Relay(
            Delivery(Nobody(), self.clock, expected=Expected(ends_with_done=True)),
            self.clock,
            ending,
            Question(
                body=b"",
                splicer=splicer,
                ahead_tokens=ahead_tokens,
                may_go=None if may_go is None else lambda: may_go,
                impatient=True,
            ),
        )
        relay.on_head(200, HEADERS)
        self.watch.enter(URL, relay)
        return relay, ending

    def play(self, relay: Relay, events: int, every_s: float) -> None:
        for _ in range(events):
            self.clock.now_s += every_s
            relay.on_body(EVENT)

    def pass_time(self, seconds: float) -> None:
        """Looked at as often as a worker looks."""
        until_s = self.clock.now_s + seconds
        self.watch.sweep(self.clock.now_s)
        while self.clock.now_s < until_s:
            self.clock.now_s = min(until_s, self.clock.now_s + 0.1)
            self.watch.sweep(self.clock.now_s)

    def finish(self, relay: Relay) -> None:
        relay.on_body(EVENT.replace(b"null", b'"stop"'))
        relay.on_end()
        self.watch.leave(URL, relay)


@pytest.fixture
def stage() -> Iterator[Stage]:
    loop = asyncio.new_event_loop()
    yield Stage(loop)
    loop.close()


def test_a_stream_that_falls_silent_is_given_up(stage: Stage) -> None:
    relay, ending = stage.stream()
    stage.play(relay, 3, every_s=0.1)
    stage.pass_time(4.9)
    assert not ending.done()
    stage.pass_time(0.2)
    assert ending.result().result is Result.LOST
    assert "no event for 5.0 s" in ending.result().reason


def test_before_its_first_event_it_may_take_its_time(stage: Stage) -> None:
    _, ending = stage.stream()
    stage.pass_time(1000)
    assert not ending.done()


def taught(stage: Stage, first_s: float, ahead_tokens: int, streams: int = 8) -> None:
    """A replica whose first events take so long behind so much."""
    for _ in range(streams):
        relay, _ = stage.stream(ahead_tokens=ahead_tokens)
        stage.play(relay, 1, every_s=first_s)
        stage.finish(relay)


def test_a_first_event_that_never_comes_is_waited_for_by_what_was_learnt(stage: Stage) -> None:
    taught(stage, first_s=2.0, ahead_tokens=1000)
    assert stage.watch.first_limit_s(URL, 1000) == pytest.approx(20)
    assert stage.watch.first_limit_s(URL, 5000) == pytest.approx(100)  # behind five times as much
    _, ending = stage.stream(ahead_tokens=5000, may_go=True)
    stage.pass_time(99)
    assert not ending.done()
    stage.pass_time(2)
    assert "no first event" in ending.result().reason
    assert not ending.result().asked  # slow is not dead: nothing is held against the request


def test_it_has_a_floor(stage: Stage) -> None:
    taught(stage, first_s=0.01, ahead_tokens=10)
    assert stage.watch.first_limit_s(URL, 10) == 15.0


def test_it_is_waited_for_where_nobody_else_could_be_asked(stage: Stage) -> None:
    taught(stage, first_s=0.1, ahead_tokens=10)
    for may_go in (False, None):
        _, ending = stage.stream(ahead_tokens=10, may_go=may_go)
        stage.pass_time(100)
        assert not ending.done()


def test_nothing_is_known_before_some_streams_have_begun(stage: Stage) -> None:
    taught(stage, first_s=0.1, ahead_tokens=10, streams=7)
    _, ending = stage.stream(ahead_tokens=10, may_go=True)
    stage.pass_time(100)
    assert not ending.done()


def test_a_slow_replica_is_given_more_by_its_own_pace(stage: Stage) -> None:
    teacher, _ = stage.stream()
    stage.play(teacher, 10, every_s=1.0)
    stage.finish(teacher)
    assert stage.watch.silence_limit_s(URL) == pytest.approx(36)
    relay, ending = stage.stream()
    stage.play(relay, 1, every_s=1.0)
    stage.pass_time(35)
    assert not ending.done()
    stage.pass_time(2)
    assert ending.done()


def test_a_slow_replica_is_not_given_up_in_its_first_stream(stage: Stage) -> None:
    relay, ending = stage.stream()
    stage.play(relay, 10, every_s=1.0)
    stage.pass_time(20)
    assert not ending.done()


def test_a_prefill_may_hold_up_the_streams_beside_it(stage: Stage) -> None:
    teacher, _ = stage.stream()
    stage.play(teacher, 2, every_s=30.0)
    stage.watch.leave(URL, teacher)
    relay, ending = stage.stream()
    stage.play(relay, 10, every_s=0.1)
    stage.pass_time(29)
    assert not ending.done()
    stage.pass_time(2)
    assert ending.done()


def test_a_short_stream_teaches_nothing(stage: Stage) -> None:
    relay, _ = stage.stream()
    stage.play(relay, 1, every_s=0.1)
    stage.play(relay, 1, every_s=100.0)
    stage.watch.leave(URL, relay)
    assert stage.watch.silence_limit_s(URL) == 5.0


def test_a_burst_after_a_slow_stream_lowers_the_limit_step_by_step(stage: Stage) -> None:
    for every_s in (1.0, 0.0, 0.0, 0.0):
        relay, _ = stage.stream()
        stage.play(relay, 10, every_s=every_s)
        stage.finish(relay)
    assert 5.0 < stage.watch.silence_limit_s(URL) < 40.0


def test_a_comment_shows_that_the_server_lives_not_that_the_engine_does(stage: Stage) -> None:
    relay, ending = stage.stream()
    stage.play(relay, 1, every_s=0.1)
    for _ in range(6):
        stage.pass_time(1.0)
        relay.on_body(b": ping\n\n")
    assert ending.done()


def test_a_replay_that_brings_what_the_client_has_shows_life_and_may_stall(stage: Stage) -> None:
    taught(stage, first_s=0.1, ahead_tokens=10)
    sent = read_sent([EVENT.replace(b'"x"', b'"%b"' % (b"x" * 200))])
    relay, ending = stage.stream(ahead_tokens=10, may_go=True, splicer=Splicer(sent, replay=True))
    for _ in range(100):  # longer than a first event is waited for
        stage.pass_time(1.0)
        relay.on_body(EVENT)
        assert not ending.done()
    stage.pass_time(60.0)
    assert "no event for" in ending.result().reason


def test_a_client_that_holds_its_stream_back_is_no_stall(stage: Stage) -> None:
    relay, ending = stage.stream()
    stage.play(relay, 1, every_s=0.1)
    relay.pause()
    stage.pass_time(1000)
    assert not ending.done()
    relay.resume()
    stage.pass_time(4)
    assert not ending.done()


def test_the_supervisors_word_ends_what_runs_there_and_forgets_its_pace(stage: Stage) -> None:
    teacher, _ = stage.stream()
    stage.play(teacher, 10, every_s=1.0)
    stage.watch.leave(URL, teacher)
    _, ending = stage.stream()
    draining = ReplicaView(id="r0", slot=0, model="m", engine="e", state=ReplicaState.DRAINING, base_url=URL)
    stage.watch.fleet_changed(FleetView(version=1, replicas=(draining,)))
    assert not ending.done()  # what it has may finish
    stage.watch.fleet_changed(FleetView(version=2))
    assert "supervisor" in ending.result().reason
    assert stage.watch.silence_limit_s(URL) == 5.0


TWIN = "http://twin"


def pair(state: ReplicaState = ReplicaState.READY, *, is_ours: bool = True) -> FleetView:
    """The replica in that state, and its twin."""
    ready = ReplicaView(
        id="r1", slot=1, model="m", engine="e", state=ReplicaState.READY, base_url=TWIN, is_ours=is_ours
    )
    one, twin = replace(ready, id="r0", slot=0, state=state, base_url=URL), ready
    return FleetView(version=1, models=(), replicas=(one, twin))


def whole_answer(stage: Stage, url: str, *, may_go: bool = True) -> "tuple[Relay, asyncio.Future[Ending]]":
    ending: asyncio.Future[Ending] = stage.loop.create_future()
    delivery = Delivery(Nobody(), stage.clock, expected=Expected(ends_with_done=True))
    asked = Question(body=b"", may_go=lambda: may_go, whole=True, ahead_tokens=100, impatient=True)
    relay = Relay(delivery, stage.clock, ending, asked)
    stage.watch.enter(url, relay)
    return relay, ending


def answer(stage: Stage, url: str, relay: Relay) -> None:
    relay.on_head(200, ((b"content-type", b"application/json"),))
    relay.on_body(b'{"choices":[]}')
    relay.on_end()
    stage.watch.leave(url, relay)


def test_a_silent_stream_that_nobody_else_could_take_waits_for_the_pause_to_end(stage: Stage) -> None:
    relay, ending = stage.stream(may_go=False)
    stage.play(relay, 3, every_s=0.1)
    stage.pass_time(60.0)
    stage.finish(relay)
    assert ending.result().result is Result.DONE


def test_a_request_that_was_given_up_before_is_waited_for_longer(stage: Stage) -> None:
    relay, ending = stage.stream(may_go=True)
    relay.question = relay.question._replace(patience=4.0)
    stage.play(relay, 3, every_s=0.1)
    stage.pass_time(19.0)
    assert not ending.done()
    stage.pass_time(2.0)
    assert ending.done()


def test_two_bad_looks_at_an_address_of_others_cut_no_stream_that_flows(stage: Stage) -> None:
    relay, ending = stage.stream(may_go=True)
    stage.watch.fleet_changed(pair(is_ours=False))
    stage.watch.fleet_changed(pair(ReplicaState.STARTING, is_ours=False))
    for _ in range(60):
        stage.play(relay, 1, every_s=0.4)
        stage.pass_time(0.1)
    assert not ending.done()
    stage.pass_time(20.0)  # but one that has fallen silent there goes to the other
    assert ending.result().result is Result.LOST


def test_what_waits_at_an_address_that_does_not_answer_goes_to_another_after_a_while(stage: Stage) -> None:
    _, ending = stage.stream(may_go=True)
    _, alone = stage.stream(may_go=False)
    stage.watch.fleet_changed(pair(ReplicaState.STARTING, is_ours=False))
    stage.pass_time(14.0)
    assert not ending.done()
    stage.pass_time(2.0)
    assert ending.result().result is Result.LOST
    assert not alone.done()


@pytest.mark.parametrize("whole", [False, True])
def test_a_replica_that_brings_nothing_to_anybody_is_held_against_its_twin(stage: Stage, whole: bool) -> None:
    stage.watch.fleet_changed(pair())
    for _ in range(2):
        relay, _ = whole_answer(stage, TWIN)
        stage.clock.now_s += 1.0
        answer(stage, TWIN, relay)
        twin, _ = stage.stream(ahead_tokens=100)
        stage.watch.leave(URL, twin)
        stage.watch.enter(TWIN, twin)
        stage.play(twin, 1, every_s=1.0)
        stage.watch.leave(TWIN, twin)
    _, ending = whole_answer(stage, URL) if whole else stage.stream(ahead_tokens=100, may_go=True)
    stage.pass_time(14.0)
    assert not ending.done()
    stage.pass_time(2.0)
    assert ending.result().result is Result.LOST
    assert not ending.result().asked  # nothing is held against the request


def test_a_whole_answer_may_take_its_time_on_a_replica_that_serves_others(stage: Stage) -> None:
    stage.watch.fleet_changed(pair())
    for _ in range(10):
        relay, _ = whole_answer(stage, TWIN)
        stage.clock.now_s += 0.1
        answer(stage, TWIN, relay)
    _, ending = whole_answer(stage, URL)
    flowing, _ = stage.stream(may_go=True)
    for _ in range(300):
        stage.play(flowing, 1, every_s=0.9)
        stage.pass_time(0.1)
    assert not ending.done()


def test_an_address_that_has_brought_something_is_named(stage: Stage) -> None:
    moved: list[str] = []
    stage.watch = StreamWatch(stall_s=5.0, on_moved=moved.append)
    relay, _ = stage.stream()
    stage.pass_time(3.0)
    assert moved == []
    stage.play(relay, 1, every_s=0.1)
    stage.pass_time(3.0)
    assert moved == [URL]
    stage.finish(relay)
    stage.pass_time(0.1)
    assert moved == [URL, URL]


def test_who_waits_where_connections_are_refused_and_nothing_comes_goes_elsewhere(stage: Stage) -> None:
    _, ending = stage.stream(may_go=True)
    stage.watch.refused(URL, stage.clock.now_s)
    stage.pass_time(4.9)
    assert not ending.done()
    stage.pass_time(0.3)
    assert ending.result().result is Result.LOST
    assert not ending.result().asked


def test_what_a_process_that_takes_no_more_still_brings_may_end(stage: Stage) -> None:
    _, ending = stage.stream(may_go=True)
    flowing, end = stage.stream(may_go=True)
    for _ in range(20):
        stage.watch.refused(URL, stage.clock.now_s)
        stage.play(flowing, 1, 0.5)
        stage.pass_time(0.5)
    assert not ending.done()
    assert not end.done()


def test_a_refused_connection_is_forgotten(stage: Stage) -> None:
    stage.watch.refused(URL, stage.clock.now_s)
    stage.pass_time(11.0)
    _, ending = stage.stream(may_go=True)
    stage.pass_time(8.0)
    assert not ending.done()
