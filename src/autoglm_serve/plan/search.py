"""The candidates of a decision: every legal shape, with the most generous limits under which it fits.

Also which GPUs may be used and which wishes contradict each other. Scoring is in `plan.score`, the words
about the outcome in `plan.why`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, isqrt

from autoglm_serve.core.engine_traits import Constants, EngineTraits
from autoglm_serve.core.facts import ModelFacts
from autoglm_serve.core.hardware import Gpu, Hardware, Link
from autoglm_serve.core.ledger import Predicted
from autoglm_serve.core.plan import Placement, Plan
from autoglm_serve.plan.cost import Luck, image_threads, image_tokens, predict
from autoglm_serve.plan.engine_flags import EngineFlags, engine_flags
from autoglm_serve.plan.legality import Setting, why_refused
from autoglm_serve.plan.memory import QUANTIZED_BYTES, EngineLimits, Fit, fit, gib, longest_image_tokens
from autoglm_serve.plan.request import Pins, PlanRequest
from autoglm_serve.plan.score import CLOSE, score
from autoglm_serve.plan.shapes import Shape, gpu_groups, shapes, spread

SEQUENCES = (256, 128, 64, 48, 32, 24, 16, 12, 8, 4, 2, 1)
"""max_num_seqs that are tried, most first. Beyond 256 nothing is won on prompts this long."""
LEAST_SEQUENCES = 128
BATCHED_TOKENS = 8192
"""Room for the longest image of the known families, and past it prefill gains nothing."""
MOST_SETS = 16
"""Sets of GPUs that one shape is tried on."""
LEAST_BATCHED_TOKENS = 64
"""Nobody serves with fewer, and each pass is simulated: at one token a pass a plan took ten seconds."""
SMALLER_BATCHES = (4096, 2048)
"""max_num_batched_tokens that are tried where the usual number leaves no room."""
SMALLER_IMAGES = (5_000_000, 4096)
"""max_pixels as Open-AutoGLM deploys the model, and the max_num_batched_tokens that then suffices."""
HANDED_MARGIN_BYTES = 150 * 2**20
"""Kept of the KV cache that an engine is handed outright, as vLLM keeps it of its own suggestion."""
IMAGES_PER_PROMPT = 10
"""As Open-AutoGLM deploys the model; some agents send a few screenshots at once. It costs no memory."""
DEFAULT_CONTEXT = 32_768
MUCH_MORE_ROOM = 1.1
"""On the fullest GPU, before it is worth a try to do without one that fits."""


Sized = tuple[EngineLimits, Fit]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plan that fits, with what it would do."""

    plan: Plan
    gpu: Gpu
    """The one with the least room, which the ledger is of (`tightest`)."""
    gpus: tuple[Gpu, ...]
    """All that it uses."""
    link: Link
    """The slowest inside its replicas."""
    shape: Shape
    limits: EngineLimits
    fit: Fit
    predicted: Predicted
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedShape:
    """A plan that was not taken, and why."""

    name: str
    reason: str
    predicted: Predicted | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The arguments of one decision, so that the steps below need not repeat them."""

    facts: ModelFacts
    hardware: Hardware
    gpus: tuple[Gpu, ...]
    request: PlanRequest
    traits: EngineTraits
    constants: Constants

    def candidates(self, methods: Iterable[str | None]) -> tuple[list[Candidate], list[RejectedShape]]:
        """Every shape that fits, under each quantisation allowed; and why the others do not."""
        found: list[Candidate] = []
        rejected: list[RejectedShape] = []
        for method in methods:
            for shape in self.shapes():
                outcome = self._size(shape, method)
                match outcome:
                    case Candidate():
                        found.append(outcome)
                    case RejectedShape():
                        rejected.append(outcome)
        return found, rejected

    @property
    def flags(self) -> EngineFlags:
        return engine_flags(self.request.pins.engine_args)

    def setting(self, shape: Shape, quantization: str | None, gpus: Sequence[Gpu]) -> Setting:
        return Setting(
            facts=self.facts,
            shape=shape,
            specs=tuple(gpu.spec for gpu in gpus),
            quantization=quantization,
            expert_parallel=self.flags.expert_parallel,
            dtype=self.request.pins.dtype,
            sliced=any(gpu.mig for gpu in gpus),
        )

    def shapes(self) -> Iterator[Shape]:
        """Those that the pins leave, smallest first."""
        pins = self.request.pins
        link = self.hardware.weakest_link(tuple(gpu.index for gpu in self.gpus[:2]))
        for shape in shapes(self.facts, len(self.gpus), link):
            if shape.pipeline_parallel > self.traits.max_pipeline:
                continue
            if pins.tensor_parallel not in (None, shape.tensor_parallel):
                continue
            if pins.pipeline_parallel not in (None, shape.pipeline_parallel):
                continue
            if shape.gpus * (pins.replicas or 1) <= len(self.gpus):
                yield shape

    def _size(self, shape: Shape, quantization: str | None) -> Candidate | RejectedShape:
        """The best limits for one shape on the GPUs it fits; or how much memory is missing."""
        refused = why_refused(self.setting(shape, quantization, self.gpus), self.traits)
        name = plan_name(self.replicas(shape, len(self.gpus)), shape, quantization)
        if refused:
            return RejectedShape(name=name, reason=f"{self.traits.engine} refuses it: {refused}")
        tried: list[Sized] = []
        best: Candidate | None = None
        for gpus in self.gpu_sets(shape):
            gpu = tightest(gpus)
            alike = best is not None and kinds_of(best.gpus) == kinds_of(gpus)
            if alike and best is not None and gpu.free_bytes < MUCH_MORE_ROOM * best.gpu.free_bytes:
                continue
            replicas = self.replicas(shape, len(gpus))
            fitting: Sized | None = None
            for limits in self.limits(shape, quantization, replicas, gpu):
                fitted = self.fit(gpu, shape, limits)
                tried.append((limits, fitted))
                if fitted.feasible and (fitting is None or self._survives(fitted)):
                    fitting = (limits, fitted)
                if fitted.feasible and self._survives(fitted):
                    break
            if fitting is not None:
                found = self._candidate(shape, *fitting, gpus, replicas)
                best = found if best is None or found.score > best.score + CLOSE else best
        if best is not None:
            return best
        if not tried:
            return RejectedShape(name=name, reason="there are not as many GPUs of one kind")
        limits, nearest = min(tried, key=lambda item: item[1].shortfall_bytes)
        return RejectedShape(
            name=name,
            reason=f"does not fit: {gib(nearest.shortfall_bytes)} more needed on each GPU for one request of "
            f"{limits.max_model_len:,} tokens",
        )

    def _survives(self, fitted: Fit) -> bool:
        """A first start, which compiles."""
        return not self.traits.compiles or fitted.survives_a_cold_start

    def fit(self, gpu: Gpu, shape: Shape, limits: EngineLimits) -> Fit:
        link = None if shape.gpus == 1 else self.hardware.weakest_link(tuple(g.index for g in self.gpus[:2]))
        return fit(self.facts, gpu, shape, limits, self.traits, self.constants, link)

    def gpu_sets(self, shape: Shape) -> Iterator[tuple[Gpu, ...]]:
        """All GPUs of a kind; then without the fullest, and so on: one that somebody else fills limits all.

        Cards that differ are put together where each runs a replica of its own, or where they were pinned.
        """
        if self.request.pins.gpus is not None:
            yield from self._without_the_fullest(shape, self.gpus)
            return
        kinds = kinds_of(self.gpus)
        if len(kinds) > 1 and shape.gpus == 1:
            yield tuple(sorted(self.gpus, key=lambda gpu: gpu.index))
        yield from self._without_the_fullest(shape, strongest(self.gpus))

    def _without_the_fullest(self, shape: Shape, gpus: Sequence[Gpu]) -> Iterator[tuple[Gpu, ...]]:
        ranked = sorted(gpus, key=lambda gpu: (-gpu.free_bytes, gpu.index))
        least = shape.gpus * (self.request.pins.replicas or 1)
        if len(ranked) < least:
            return
        sizes = [len(ranked)]
        sizes += [
            n
            for n in range(len(ranked) - 1, least - 1, -1)
            if ranked[n - 1].free_bytes > ranked[n].free_bytes
        ]
        for size in sizes[:MOST_SETS]:
            yield tuple(sorted(ranked[:size], key=lambda gpu: gpu.index))

    def replicas(self, shape: Shape, gpus: int) -> int:
        return self.request.pins.replicas or max(1, gpus // shape.gpus)

    def limits(
        self, shape: Shape, quantization: str | None, replicas: int, gpu: Gpu
    ) -> Iterator[EngineLimits]:
        """Limits from the most generous to the leanest; the first that fits is taken."""
        for batched in self._batches():
            yield self._best_limits(shape, quantization, replicas, gpu, batched)

    def _best_limits(
        self, shape: Shape, quantization: str | None, replicas: int, gpu: Gpu, batched: int
    ) -> EngineLimits:
        """The most sequences that fit, that have room for a step each, and that survive a first start; of
        these wishes the later ones are given up last. The leanest where none fits."""
        live = self.live_tokens(self.request.pins.max_pixels)
        ranked: dict[tuple[bool, bool], EngineLimits] = {}
        for sequences in self._sequences(replicas):
            last = self._limits(quantization, sequences, batched, self._image_threads(shape, replicas))
            fitted = self.fit(gpu, shape, last)
            if not fitted.feasible:
                continue
            cold = not self._survives(fitted)
            crowded = fitted.requests(live) < sequences
            ranked.setdefault((cold, crowded), last)
            if not cold and not crowded:
                break
        return ranked[min(ranked)] if ranked else last

    def _image_threads(self, shape: Shape, replicas: int) -> int:
        if self.facts.vision is None or not self.traits.threads_by_environment:
            return 1
        return image_threads(self.hardware.host, replicas, shape)

    def _limits(self, quantization: str | None, sequences: int, batched: int, threads: int) -> EngineLimits:
        pins, flags = self.request.pins, self.flags
        return EngineLimits(
            max_model_len=self.max_model_len(),
            max_num_seqs=sequences,
            max_num_batched_tokens=pins.max_num_batched_tokens or max(batched, sequences),
            quantization=quantization,
            max_pixels=pins.max_pixels,
            gpu_memory_utilization=pins.gpu_memory_utilization,
            eager=flags.eager,
            kv_element_bytes=flags.kv_element_bytes,
            lora_elements=lora_elements(self.facts, flags),
            image_threads=threads,
        )

    def _batches(self) -> Iterator[int]:
        """max_num_batched_tokens to try. Where the engine sizes its room for images by a square one, a tall
        one is a little longer and has to fit a pass."""
        longest = longest_image_tokens(self.facts, self.request.pins.max_pixels)
        square = isqrt(longest) ** 2
        least = round_up(longest, 1024) if square < longest else 0
        yield max(BATCHED_TOKENS, least)
        if least and least < BATCHED_TOKENS:
            yield least
        yield from (batched for batched in SMALLER_BATCHES if batched >= least)

    def _sequences(self, replicas: int) -> Iterator[int]:
        """max_num_seqs to try: room for the workload's sessions and a quarter more, then fewer.

        A full card cannot hold that many and takes fewer; a roomy one keeps room for a busier day.
        """
        pinned = self.request.pins.max_num_seqs
        if pinned:
            yield pinned
            return
        wanted = max(LEAST_SEQUENCES, ceil(1.25 * self.request.workload.sessions / replicas))
        largest = min((n for n in SEQUENCES if n >= wanted), default=SEQUENCES[0])
        largest = min(largest, self.request.pins.max_num_batched_tokens or largest)
        yield from (n for n in SEQUENCES if n <= largest)

    def max_model_len(self) -> int:
        """The pinned context, the one the makers deploy with, or the model's own up to 32k."""
        text = self.facts.text
        usual = self.facts.recommended_max_model_len or DEFAULT_CONTEXT
        return self.request.pins.max_model_len or min(text.max_positions, usual)

    def live_tokens(self, max_pixels: int | None) -> int:
        workload = self.request.workload
        return workload.step_tokens(image_tokens(self.facts, workload, max_pixels))

    def _candidate(
        self, shape: Shape, limits: EngineLimits, fitted: Fit, gpus: tuple[Gpu, ...], replicas: int
    ) -> Candidate:
        groups = gpu_groups(self.hardware, [gpu.index for gpu in gpus], shape.gpus, replicas)
        link = max((self.hardware.weakest_link(group) for group in groups), key=list(Link).index)
        used = tuple(gpu for gpu in gpus if any(gpu.index in group for group in groups))
        predicted = self.predict(shape, limits, fitted, used, link, replicas)
        plan = Plan(
            engine=self.traits.engine,
            placements=self._placements(groups),
            tensor_parallel=shape.tensor_parallel,
            pipeline_parallel=shape.pipeline_parallel,
            content_format=self.facts.content_format,
            max_model_len=limits.max_model_len,
            max_num_seqs=limits.max_num_seqs,
            threads=limits.image_threads if limits.image_threads > 1 else None,
            dtype=self.request.pins.dtype or ("auto" if all(gpu.spec.bf16 for gpu in gpus) else "float16"),
            quantization=limits.quantization,
            max_num_batched_tokens=limits.max_num_batched_tokens,
            gpu_memory_utilization=fitted.gpu_memory_utilization,
            kv_cache_memory_bytes=self._handed_bytes(fitted),
            max_pixels=limits.max_pixels,
            images_per_prompt=max(IMAGES_PER_PROMPT, self.request.workload.images)
            if self.facts.vision
            else None,
            encoder_data_parallel=shape.encoder_data_parallel,
            peer_access=link is not Link.HOST,
            engine_args=self.request.pins.engine_args,
            ledger=fitted.ledger,
            predicted=predicted,
        )
        return Candidate(
            plan=plan,
            gpu=tightest(gpus),
            gpus=used,
            link=link,
            shape=shape,
            limits=limits,
            fit=fitted,
            predicted=predicted,
            score=score(predicted, self.request),
        )

    def _handed_bytes(self, fitted: Fit) -> int | None:
        """The KV cache to hand the engine outright: where a start that compiles would find too little, and
        this very machine has measured what the rest takes."""
        sure = self.constants.measured_here and self.traits.takes_kv_bytes
        pinned = self.request.pins.gpu_memory_utilization is not None
        if not sure or pinned or self._survives(fitted):
            return None
        return max(0, fitted.ledger.kv_cache_bytes - HANDED_MARGIN_BYTES)

    def predict(
        self,
        shape: Shape,
        limits: EngineLimits,
        fitted: Fit,
        gpus: Sequence[Gpu],
        link: Link,
        replicas: int,
        luck: Luck = Luck.USUAL,
    ) -> Predicted:
        """Of replicas on cards that differ, each kind gives what it can; a step is as long as on the
        slowest."""
        kinds = kinds_of(gpus) if shape.gpus == 1 and replicas == len(gpus) else {"": tuple(gpus)}
        parts = []
        for alike in kinds.values():
            share = len(alike) / max(1, len(gpus))
            load = replace(
                self.request.workload, sessions=max(1, ceil(share * self.request.workload.sessions))
            )
            parts.append(
                predict(
                    self.facts,
                    min((gpu.spec for gpu in alike), key=lambda spec: spec.flops_16bit),
                    link,
                    shape,
                    limits,
                    len(alike) if len(kinds) > 1 else replicas,
                    fitted.ledger,
                    load if len(kinds) > 1 else self.request.workload,
                    self.constants,
                    luck,
                )
            )
        slowest = min(parts, key=lambda part: part.steps_per_s)
        if len(parts) == 1:
            return slowest
        steps_per_s = sum(part.steps_per_s for part in parts)
        worst = max(parts, key=lambda part: part.single_ttft_s)
        return replace(
            worst,
            steps_per_s=steps_per_s,
            ttft_s=max(part.ttft_s for part in parts),
            tpot_s=max(part.tpot_s for part in parts),
            sessions=self.request.workload.sessions,
        )

    def _placements(self, groups: tuple[tuple[int, ...], ...]) -> tuple[Placement, ...]:
        devices = {index: self.hardware.gpu(index).device for group in groups for index in group}
        named = all(devices.values())
        return tuple(
            Placement(gpus=group, devices=tuple(devices[index] for index in group) if named else ())
            for group in groups
        )


# --- which GPUs ------------------------------------------------------------------------------------------


def usable_gpus(hardware: Hardware, pins: Pins) -> tuple[Gpu, ...]:
    """The pinned GPUs, or all."""
    if pins.gpus is None:
        return hardware.gpus
    present = {gpu.index for gpu in hardware.gpus}
    return tuple(hardware.gpu(index) for index in pins.gpus if index in present)


def kinds_of(gpus: Sequence[Gpu]) -> dict[str, tuple[Gpu, ...]]:
    """The GPUs by kind, in the order of their first."""
    kinds: dict[str, list[Gpu]] = {}
    for gpu in gpus:
        kinds.setdefault(gpu.title if gpu.mig or gpu.spec.key == "unknown" else gpu.spec.key, []).append(gpu)
    return {kind: tuple(alike) for kind, alike in kinds.items()}


def strongest(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """The kind with the most arithmetic together. A slower card would set the pace of the others."""
    return max(kinds_of(gpus).values(), key=lambda alike: sum(gpu.spec.flops_16bit for gpu in alike))


def lora_elements(facts: ModelFacts, flags: EngineFlags) -> int:
    """Weights of the adapters that `--enable-lora` makes room for: two thin matrices beside each linear.

    Source: vLLM's lora/layers, whose buffers are as large as the largest rank for every slot.
    """
    text = facts.text
    wide = 4 * (text.hidden + text.heads * text.head_dim) + 3 * (text.hidden + text.intermediate)
    return flags.lora_slots * flags.lora_rank * text.layers * wide


def tightest(gpus: Sequence[Gpu]) -> Gpu:
    """The GPU that sets the limits of all: what fits it, by bytes and as a share of its memory, fits each.

    Where they differ in size it has the smallest one's memory, of which the largest share in use is in use:
    the engine is told one share for all of them.
    """
    least = min(gpus, key=lambda gpu: gpu.free_bytes)
    total_bytes = min(gpu.total_bytes for gpu in gpus)
    if all(gpu.total_bytes == total_bytes for gpu in gpus):
        return least
    share = min(gpu.free_bytes / gpu.total_bytes for gpu in gpus)
    return replace(least, total_bytes=total_bytes, free_bytes=min(least.free_bytes, int(share * total_bytes)))


def contradiction(
    facts: ModelFacts, hardware: Hardware, usable: Sequence[Gpu], pins: Pins, traits: EngineTraits
) -> str:
    """A contradiction that no amount of memory resolves; empty where there is none."""
    total = len(hardware.gpus)
    if not hardware.gpus:
        return f"{traits.engine} needs a GPU and none is visible"
    if pins.gpus is not None and len(usable) < len(pins.gpus):
        missing = next(index for index in pins.gpus if index not in {gpu.index for gpu in hardware.gpus})
        numbers = "GPU 0 alone" if total == 1 else f"{total}: 0 to {total - 1}"
        return f"GPU {missing} was asked for and this machine shows {numbers}"
    method = pins.quantization
    if method not in (None, "none", "auto", facts.quantization, *QUANTIZED_BYTES):
        known = ", ".join(QUANTIZED_BYTES)
        return (
            f"how small --quantization {method} makes the weights is not known here (known: {known}); "
            "hand it to the engine after --"
        )
    refused = _refused(facts, usable, pins, traits)
    if refused:
        return refused
    ways, stages = pins.tensor_parallel or 1, pins.pipeline_parallel or 1
    wanted = ways * stages * (pins.replicas or 1)
    if wanted > len(usable):
        return f"{wanted} GPUs were asked for (TP x PP x replicas) and {len(usable)} can be used"
    beyond = beyond_context(pins.max_model_len, facts.text.max_positions)
    if beyond:
        return beyond
    batched = pins.max_num_batched_tokens
    if batched and batched < LEAST_BATCHED_TOKENS:
        return (
            f"{batched} token{'s' * (batched > 1)} a pass {'are' if batched > 1 else 'is'} too few to read "
            f"prompts of thousands; raise --max-num-batched-tokens to {LEAST_BATCHED_TOKENS} at least"
        )
    if traits.pass_feeds_all and batched and pins.max_num_seqs and batched < pins.max_num_seqs:
        return (
            f"a pass of {batched:,} tokens cannot give each of {pins.max_num_seqs:,} sequences one; raise "
            "--max-num-batched-tokens or lower --max-num-seqs"
        )
    if pins.dtype == "bfloat16" and not all(gpu.spec.bf16 for gpu in usable):
        return f"{usable[0].title} has no bfloat16; use --dtype float16 or leave it out"
    return ""


def _refused(facts: ModelFacts, usable: Sequence[Gpu], pins: Pins, traits: EngineTraits) -> str:
    """What the engine would not start with: on one GPU of these, or with the pinned split."""
    flags, method = engine_flags(pins.engine_args), pins.quantization
    plain = Setting(
        facts=facts,
        shape=Shape(tensor_parallel=1),
        specs=tuple(gpu.spec for gpu in usable),
        quantization=None if method in (None, "none", "auto", facts.quantization) else method,
        expert_parallel=flags.expert_parallel,
        dtype=pins.dtype,
        sliced=any(gpu.mig for gpu in usable),
    )
    alone = why_refused(plain, traits)
    if alone:
        return f"{traits.engine} {traits.version} would refuse to start: {alone}"
    ways, stages = pins.tensor_parallel or 1, pins.pipeline_parallel or 1

    def why(tensor: int) -> str | None:
        shape = spread(facts, tensor, stages, Link.HOST)
        return why_refused(replace(plain, shape=shape), traits)

    illegal = why(ways)
    if not illegal:
        return ""
    legal = ", ".join(str(tensor) for tensor in range(1, max(8, min(ways, 64)) + 1) if not why(tensor))
    return f"tensor parallel {ways} is not possible: {illegal}. Possible: {legal or 'none'}"


def beyond_context(asked: int | None, own: int | None) -> str:
    """A context longer than the model was made for; empty where it is not, or where that is not known."""
    if asked and own and asked > own:
        return f"the model's context ends at {own:,} tokens and {asked:,} were asked for"
    return ""


def allowed_quantization(facts: ModelFacts, usable: Sequence[Gpu], pins: Pins) -> tuple[str | None, ...]:
    """What the person allows, first choice first. Nothing is quantised that they did not ask for."""
    match pins.quantization:
        case None | "none":
            return (None,)
        case "auto":
            return (None, "fp8") if can_quantize(facts, usable) else (None,)
        case method:
            return (None,) if facts.quantization == method else (method,)


def can_quantize(facts: ModelFacts, usable: Sequence[Gpu]) -> bool:
    return facts.quantization is None and all(gpu.spec.compute_capability >= (8, 0) for gpu in usable)


def plan_name(replicas: int, shape: Shape, quantization: str | None) -> str:
    return f"{replicas}x {shape.name}{f' {quantization}' if quantization else ''}"


def round_up(value: int, step: int) -> int:
    return ceil(value / step) * step
