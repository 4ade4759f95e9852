"""A replica under the load of phone agents, pass by pass: what comes out is what a load test would read off.

The engine's scheduler as vLLM has it. A pass has room for so many tokens: answers under way take one each,
first; prompts take the rest in the order in which they came, in pieces where they are longer, each image
whole in the first pass of its prompt. A pass is put together while the one before it runs. Before all that
the host takes the images apart, some of it side by side, some one request after the other. Sessions are a
closed loop, with a pause between steps where the load has one.

Arithmetic on `Replica` and `Load`, which `plan.cost` makes. Knows no GPU and no model. The test beside it is
`benchmarks/gpu/agent_load.py`: the same load on a real engine, with the same figures.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from statistics import median

GOLDEN = 0.6180339887498949
"""Multiples of it fall evenly between whole numbers: lengths of answers without a die."""
PLASTIC = 0.7548776662466927
"""The same for a second row of numbers beside it."""
JITTER = 0.25
"""By how much the host's part of a request is shorter or longer: 0.14 to 0.25 s were measured."""
CYCLES = (2, 6)
"""Steps of each session that are counted, at least and at most, after one that is not."""
COUNTED = 400
"""Steps in all that are enough in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """Seconds that the parts of one replica take, and its limits."""

    beside_s: float
    """The host's part of a request that others do not wait for."""
    turn_s: float
    """The host's part that is done for one request after the other."""
    image_s: float
    """One image in the pass that encodes it."""
    token_s: float
    """One token of a prompt, without attention."""
    pair_s: float
    """Attention of one token of a prompt to one before it."""
    weights_s: float
    """Reading the weights once: no pass takes less."""
    cached_s: float
    """Reading the keys and values of one token of an answer's context."""
    pass_s: float
    """What every pass takes besides."""
    prompt_pass_s: float
    """What a pass with prompts in it takes more."""
    batched_tokens: int
    """Tokens of one pass."""
    image_room_tokens: int
    """Tokens of images in one pass and the one before it, which still holds its own."""
    at_once: int
    """Requests that are worked on at the same time."""
    stages: int = 1
    """Of a pipeline that prompts follow each other through: one is read while another is in a later stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A closed loop of sessions, all alike but for the length of their answers."""

    sessions: int
    shared_tokens: int
    text_tokens: int
    images: int
    image_tokens: int
    """Of each."""
    output_tokens: int
    """On average; an answer has between half and one and a half times as many."""
    think_s: float = 0.0
    """Between the end of an answer and the session's next request."""

    @property
    def new_tokens(self) -> int:
        return self.text_tokens + self.images * self.image_tokens

    @property
    def live_tokens(self) -> int:
        """The most that a request holds in the KV cache, on average."""
        return self.shared_tokens + self.new_tokens + self.output_tokens

    def answer_tokens(self, number: int) -> int:
        """Length of the answer to request `number`."""
        return max(2, round(self.output_tokens * (0.5 + number * GOLDEN % 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenSpeed:
    """Steps per second, and medians over the steps that were counted."""

    steps_per_s: float
    ttft_s: float
    tpot_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A measurement cut as `agent_load.py` cuts it."""

    spread_s: float
    """Over which the sessions begin."""
    until_s: float
    """Steps that end after the spread and before this are counted."""


def burst(replica: Replica, load: Load, rounds: int) -> SeenSpeed:
    """All sessions begin at the same moment and do so many steps each: a load test that does not wait."""
    run = _Run(replica, load)
    return run.at_once(rounds)


def watch(replica: Replica, load: Load, window: Window | None = None) -> SeenSpeed:
    """The load on the replica, seen through the window; without one, once it has settled."""
    run = _Run(replica, load)
    return run.settled() if window is None else run.through(window)


@dataclass(slots=True)
class _Request:
    """One step of a session on its way."""

    session: int
    begun_s: float
    tokens: int
    """Of the answer."""
    done: int = 0
    """Tokens of the prompt that are computed, beyond the shared ones."""
    first_s: float = 0.0


@dataclass(slots=True)
class _Run:
    """One simulation: what host and engine hold at `now_s`, and what has ended."""

    replica: Replica
    load: Load
    now_s: float = 0.0
    host_free_s: float = 0.0
    asked: int = 0
    answering: int = 0
    context: int = 0
    """Tokens that all sequences being answered look back on."""
    passes: int = 0
    """So far: each gave every answer under way one token."""
    ahead_s: float = 0.0
    """When the pass before this one began: what had come by then is in this one."""
    images_before: int = 0
    """Encoded in the pass before this one."""
    beginning: list[tuple[float, int]] = field(default_factory=list)
    """Sessions that are not asking: when they will, soonest first (a heap)."""
    coming: list[tuple[float, int, "_Request"]] = field(default_factory=list)
    """With the engine at that time."""
    waiting: deque[_Request] = field(default_factory=deque)
    reading: list[_Request] = field(default_factory=list)
    """Taken up, prompt not yet read to its end."""
    ends: defaultdict[int, list[_Request]] = field(default_factory=lambda: defaultdict(list))
    """By the count of passes at which the answer is complete."""
    steps: list[tuple[float, float, float]] = field(default_factory=list)
    """(ended, TTFT, TPOT)."""

    def settled(self) -> SeenSpeed:
        """Figures of some steps of each session, after one that is not counted."""
        sessions = self.load.sessions
        least, most = (cycles * sessions for cycles in CYCLES)
        self._begin(self._a_round_s())
        while len(self.steps) < sessions + max(least, min(most, COUNTED)):
            self._pass()
        since_s = self.steps[sessions - 1][0]
        return _figures(self.steps[sessions:], self.steps[-1][0] - since_s)

    def at_once(self, rounds: int) -> SeenSpeed:
        self._begin(0.0)
        while len(self.steps) < rounds * self.load.sessions:
            self._pass()
        return _figures(self.steps, self.now_s)

    def through(self, window: Window) -> SeenSpeed:
        self._begin(window.spread_s)
        while self.now_s < window.until_s:
            self._pass()
        counted = [step for step in self.steps if window.spread_s <= step[0] <= window.until_s]
        return _figures(counted, window.until_s - window.spread_s)

    def _begin(self, spread_s: float) -> None:
        sessions = self.load.sessions
        self.beginning = [(number * spread_s / sessions, number) for number in range(sessions)]

    def _let_begin(self, until_s: float) -> None:
        while self.beginning and self.beginning[0][0] <= until_s:
            at_s, session = heappop(self.beginning)
            self._ask(session, at_s)

    def _a_round_s(self) -> float:
        """About what one step of every session takes: they begin spread over it."""
        load, replica = self.load, self.replica
        pairs = load.new_tokens * (load.shared_tokens + load.new_tokens / 2)
        prompt_s = load.images * replica.image_s + load.new_tokens * replica.token_s + pairs * replica.pair_s
        batch = min(load.sessions, replica.at_once)
        context = load.shared_tokens + load.new_tokens
        answer_s = load.output_tokens * (
            replica.weights_s + replica.pass_s + batch * context * replica.cached_s
        )
        return load.sessions * max(prompt_s, replica.turn_s) + answer_s + load.think_s

    def _ask(self, session: int, at_s: float) -> None:
        """A session asks; the host prepares it, in the order of asking."""
        request = _Request(session, at_s, self.load.answer_tokens(self.asked))
        self.asked += 1
        turn_s = self.replica.turn_s * (1 + JITTER * (2 * (self.asked * PLASTIC % 1) - 1))
        self.host_free_s = max(at_s + self.replica.beside_s, self.host_free_s) + turn_s
        heappush(self.coming, (self.host_free_s, self.asked, request))

    def _pass(self) -> None:
        """One pass, or several alike where nothing but time happens between them."""
        self._let_begin(self.now_s)
        if not (self.answering or self.reading or self.waiting):
            if not self.coming or (self.beginning and self.beginning[0][0] < self.coming[0][0]):
                self._let_begin(self.beginning[0][0])
            self.now_s = self.ahead_s = max(self.now_s, self.coming[0][0])
            self.images_before = 0
        while self.coming and self.coming[0][0] <= self.ahead_s:
            self.waiting.append(heappop(self.coming)[2])
        read, images, pairs, complete = self._schedule()
        once_s = self._pass_s(read, images, pairs)
        only_answers = self.answering and not (read or self.reading or self.waiting)
        count = self._passes_alike(once_s) if only_answers else 1
        growth = self.answering * count * (count - 1) / 2  # of contexts meanwhile
        self.ahead_s = self.now_s + (count - 1) * once_s
        self.now_s += count * once_s + growth * self.replica.cached_s
        self.passes += count
        self.context += count * self.answering
        for request in self.ends.pop(self.passes, ()):
            self._end(request)
        for request in complete:
            self._begin_answer(request, self._later_s(read, pairs))

    def _pass_s(self, read: int, images: int, pairs: float) -> float:
        """Until the next one can follow."""
        replica = self.replica
        return (
            max((read / replica.stages + self.answering) * replica.token_s, replica.weights_s)
            + replica.pass_s
            + self.context * replica.cached_s
            + pairs / replica.stages * replica.pair_s
            + images * replica.image_s
            + (replica.prompt_pass_s if read else 0.0)
        )

    def _later_s(self, read: int, pairs: float) -> float:
        """What its prompts still take in later stages when the next pass has followed."""
        replica = self.replica
        return (read * replica.token_s + pairs * replica.pair_s) * (1 - 1 / replica.stages)

    def _passes_alike(self, once_s: float) -> int:
        """Passes until an answer is complete or a prompt is taken up."""
        count = min(self.ends) - self.passes
        for events in (self.coming, self.beginning):
            if events:
                count = min(count, int((events[0][0] - self.now_s) / once_s) + 2)
        return max(1, count)

    def _schedule(self) -> tuple[int, int, float, list[_Request]]:
        """(tokens read, images encoded, attention pairs, prompts read to their end) of the next pass."""
        load, replica = self.load, self.replica
        room = replica.batched_tokens - self.answering
        free = replica.at_once - self.answering - len(self.reading)
        while self.waiting and free > 0:
            self.reading.append(self.waiting.popleft())
            free -= 1
        held = self.images_before
        fitting = max(load.images, replica.image_room_tokens // load.image_tokens) if load.images else 0
        read = images = 0
        pairs = 0.0
        complete = []
        for request in self.reading:
            if room <= 0 or (not request.done and load.images and held + load.images > fitting):
                break
            if not request.done:
                held += load.images
                images += load.images
            piece = min(load.new_tokens - request.done, room)
            pairs += piece * (load.shared_tokens + request.done + piece / 2)
            request.done += piece
            room -= piece
            read += piece
            if request.done == load.new_tokens:
                complete.append(request)
        for request in complete:
            self.reading.remove(request)
        self.images_before = images
        return read, images, pairs, complete

    def _begin_answer(self, request: _Request, later_s: float) -> None:
        """The pass that ended a prompt gave its first token, so much later."""
        request.first_s = self.now_s + later_s
        self.answering += 1
        self.context += self.load.shared_tokens + self.load.new_tokens + 1
        self.ends[self.passes + request.tokens - 1].append(request)

    def _end(self, request: _Request) -> None:
        self.answering -= 1
        self.context -= self.load.shared_tokens + self.load.new_tokens + request.tokens
        tpot_s = (self.now_s - request.first_s) / (request.tokens - 1)
        self.steps.append((self.now_s, request.first_s - request.begun_s, tpot_s))
        if self.load.think_s:
            heappush(self.beginning, (self.now_s + self.load.think_s, request.session))
        else:
            self._ask(request.session, self.now_s)


def _figures(steps: Sequence[tuple[float, float, float]], seconds: float) -> SeenSpeed:
    return SeenSpeed(
        steps_per_s=len(steps) / seconds,
        ttft_s=median(ttft_s for _, ttft_s, _ in steps),
        tpot_s=median(tpot_s for _, _, tpot_s in steps),
    )
