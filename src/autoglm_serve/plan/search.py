"""The candidates of a decision: every legal shape, with the most generous limits under which it fits.

Also which GPUs may be used and which wishes contradict each other. Scoring is in `plan.score`, the words
about the outcome in `plan.why`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

from autoglm_serve.core.engine_traits import Constants, EngineTraits
from autoglm_serve.core.facts import ModelFacts
from autoglm_serve.core.hardware import Gpu, Hardware, Link
from autoglm_serve.core.ledger import Predicted
from autoglm_serve.core.plan import Placement, Plan
from autoglm_serve.plan.cost import image_tokens, predict
from autoglm_serve.plan.memory import QUANTIZED_BYTES, Fit, Limits, fit, gib, longest_image_tokens
from autoglm_serve.plan.request import Pins, Request
from autoglm_serve.plan.score import CLOSE, score
from autoglm_serve.plan.shapes import Shape, gpu_groups, legal_tensor_parallel, shapes, why_illegal

SEQUENCES = (256, 128, 64, 48, 32, 24, 16, 12, 8, 4, 2, 1)
"""max_num_seqs that are tried, most first. Beyond 256 nothing is won on prompts this long."""
LEAST_SEQUENCES = 128
BATCHED_TOKENS = 8192
"""Room for the longest image of the known families, and past it prefill gains nothing."""
LEAST_BATCHED_TOKENS = 64
"""Nobody serves with fewer, and each pass is simulated: at one token a pass a plan took ten seconds."""
SMALLER_IMAGES = (5_000_000, 4096)
"""max_pixels as Open-AutoGLM deploys the model, and the max_num_batched_tokens that then suffices."""
IMAGES_PER_PROMPT = 10
"""As Open-AutoGLM deploys the model; some agents send a few screenshots at once. It costs no memory."""
DEFAULT_CONTEXT = 32_768
MUCH_MORE_ROOM = 1.1
"""On the fullest GPU, before it is worth a try to do without one that fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plan that fits, with what it would do."""

    plan: Plan
    gpu: Gpu
    """The one with the least room, which the ledger is of (`tightest`)."""
    shape: Shape
    limits: Limits
    fit: Fit
    predicted: Predicted
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
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
    request: Request
    traits: EngineTraits
    constants: Constants

    def candidates(self, methods: Iterable[str | None]) -> tuple[list[Candidate], list[Rejected]]:
        """Every shape that fits, under each quantisation allowed; and why the others do not."""
        found: list[Candidate] = []
        rejected: list[Rejected] = []
        for method in methods:
            for shape in self.shapes():
                outcome = self._size(shape, method)
                match outcome:
                    case Candidate():
                        found.append(outcome)
                    case Rejected():
                        rejected.append(outcome)
        return found, rejected

    def shapes(self) -> Iterator[Shape]:
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

    def _size(self, shape: Shape, quantization: str | None) -> Candidate | Rejected:
        """The best limits for one shape on the GPUs it fits; or how much memory is missing."""
        tried: list[tuple[Limits, Fit]] = []
        best: Candidate | None = None
        for gpus in self.gpu_sets(shape):
            gpu = tightest(gpus)
            if best is not None and gpu.free_bytes < MUCH_MORE_ROOM * best.gpu.free_bytes:
                continue
            replicas = self.replicas(shape, len(gpus))
            for limits in self.limits(shape, quantization, replicas, gpu):
                fitted = fit(self.facts, gpu, shape, limits, self.traits, self.constants)
                tried.append((limits, fitted))
                if fitted.feasible:
                    found = self._candidate(shape, limits, fitted, gpus, replicas)
                    best = found if best is None or found.score > best.score + CLOSE else best
                    break
        if best is not None:
            return best
        limits, nearest = min(tried, key=lambda item: item[1].shortfall_bytes)
        return Rejected(
            name=plan_name(self.replicas(shape, len(self.gpus)), shape, quantization),
            reason=f"does not fit: {gib(nearest.shortfall_bytes)} more needed on each GPU for one request of "
            f"{limits.max_model_len:,} tokens",
        )

    def gpu_sets(self, shape: Shape) -> Iterator[tuple[Gpu, ...]]:
        """All usable GPUs; then without the fullest, and so on: one that somebody else fills limits all."""
        ranked = sorted(self.gpus, key=lambda gpu: (-gpu.free_bytes, gpu.index))
        least = shape.gpus * (self.request.pins.replicas or 1)
        sizes = [len(ranked)]
        sizes += [
            n
            for n in range(len(ranked) - 1, least - 1, -1)
            if ranked[n - 1].free_bytes > ranked[n].free_bytes
        ]
        for size in sizes:
            yield tuple(sorted(ranked[:size], key=lambda gpu: gpu.index))

    def replicas(self, shape: Shape, gpus: int) -> int:
        return self.request.pins.replicas or max(1, gpus // shape.gpus)

    def limits(self, shape: Shape, quantization: str | None, replicas: int, gpu: Gpu) -> Iterator[Limits]:
        """Limits from the most generous to the leanest; the first that fits is taken."""
        pins = self.request.pins
        context = self.max_model_len()
        for max_pixels, batched in self._image_bounds():
            live = self.live_tokens(max_pixels)
            best: Limits | None = None
            for sequences in self._sequences(replicas):
                limits = Limits(
                    max_model_len=context,
                    max_num_seqs=sequences,
                    max_num_batched_tokens=pins.max_num_batched_tokens or max(batched, sequences),
                    quantization=quantization,
                    max_pixels=max_pixels,
                    gpu_memory_utilization=pins.gpu_memory_utilization,
                )
                fitted = fit(self.facts, gpu, shape, limits, self.traits, self.constants)
                if fitted.feasible and fitted.ledger.kv_cache_tokens >= sequences * live:
                    yield limits
                if fitted.feasible and best is None:
                    best = limits
                last = limits
            yield best or last

    def _image_bounds(self) -> Iterator[tuple[int | None, int]]:
        """(max_pixels, max_num_batched_tokens): an image must fit the encoder budget in one piece."""
        pinned = self.request.pins.max_pixels
        longest = longest_image_tokens(self.facts, pinned)
        yield pinned, max(BATCHED_TOKENS, round_up(longest, 1024))
        vision = self.facts.vision
        if vision and vision.max_pixels_flag and pinned is None:
            pixels, batched = SMALLER_IMAGES
            yield pixels, max(batched, round_up(longest_image_tokens(self.facts, pixels), 1024))
        elif vision is None:
            yield None, 2048

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
        self, shape: Shape, limits: Limits, fitted: Fit, gpus: tuple[Gpu, ...], replicas: int
    ) -> Candidate:
        groups = gpu_groups(self.hardware, [gpu.index for gpu in gpus], shape.gpus, replicas)
        link = max((self.hardware.weakest_link(group) for group in groups), key=list(Link).index)
        spec = min((gpu.spec for gpu in gpus), key=lambda spec: spec.flops_16bit)
        predicted = predict(
            self.facts,
            spec,
            link,
            shape,
            limits,
            replicas,
            fitted.ledger,
            self.request.workload,
            self.constants,
        )
        plan = Plan(
            engine=self.traits.engine,
            placements=self._placements(groups),
            tensor_parallel=shape.tensor_parallel,
            pipeline_parallel=shape.pipeline_parallel,
            content_format=self.facts.content_format,
            max_model_len=limits.max_model_len,
            max_num_seqs=limits.max_num_seqs,
            dtype=self.request.pins.dtype or ("auto" if all(gpu.spec.bf16 for gpu in gpus) else "float16"),
            quantization=limits.quantization,
            max_num_batched_tokens=limits.max_num_batched_tokens,
            gpu_memory_utilization=fitted.gpu_memory_utilization,
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
            shape=shape,
            limits=limits,
            fit=fitted,
            predicted=predicted,
            score=score(predicted, self.request),
        )

    def _placements(self, groups: tuple[tuple[int, ...], ...]) -> tuple[Placement, ...]:
        devices = {index: self.hardware.gpu(index).device for group in groups for index in group}
        named = all(devices.values())
        return tuple(
            Placement(gpus=group, devices=tuple(devices[index] for index in group) if named else ())
            for group in groups
        )


# --- which GPUs ------------------------------------------------------------------------------------------


def usable_gpus(hardware: Hardware, pins: Pins) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """The pinned GPUs, or the strongest set of equal ones. A slower card would set the pace of the others."""
    if pins.gpus is not None:
        present = {gpu.index for gpu in hardware.gpus}
        return tuple(hardware.gpu(index) for index in pins.gpus if index in present), ()
    kinds: dict[str, list[Gpu]] = {}
    for gpu in hardware.gpus:
        kinds.setdefault(gpu.spec.key if gpu.spec.key != "unknown" else gpu.title, []).append(gpu)
    if len(kinds) < 2:
        return hardware.gpus, ()
    best = max(kinds.values(), key=lambda gpus: sum(gpu.spec.flops_16bit for gpu in gpus))
    left = [gpu for gpu in hardware.gpus if gpu not in best]
    names = ", ".join(f"{gpu.title} (GPU {gpu.index})" for gpu in left)
    return tuple(best), (f"the GPUs differ: {names} left out; --gpus names the ones to use",)


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
    ways, stages = pins.tensor_parallel or 1, pins.pipeline_parallel or 1
    data = bool(facts.vision and facts.vision.encoder_data_parallel)
    shape = Shape(tensor_parallel=ways, pipeline_parallel=stages, encoder_data_parallel=data)
    illegal = why_illegal(facts, shape)
    if illegal:
        legal = ", ".join(map(str, legal_tensor_parallel(facts, max(8, ways))))
        return f"tensor parallel {ways} is not possible: {illegal}. Possible: {legal}"
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
    if traits.engine == "vllm" and batched and pins.max_num_seqs and batched < pins.max_num_seqs:
        return (
            f"a pass of {batched:,} tokens cannot give each of {pins.max_num_seqs:,} sequences one; raise "
            "--max-num-batched-tokens or lower --max-num-seqs"
        )
    if pins.dtype == "bfloat16" and not all(gpu.spec.bf16 for gpu in usable):
        return f"{usable[0].title} has no bfloat16; use --dtype float16 or leave it out"
    return ""


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
