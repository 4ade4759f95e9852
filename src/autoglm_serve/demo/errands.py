"""Errands: tasks of several steps on a phone, what the next right step is, and how it is said.

Owns the wording in both languages, the plan behind a wording, and the policy: what to do on a screen follows
from the errand and the screen alone, never from what was done before. Knows nothing of pictures or models.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from . import words
from .screens import Element, Screen
from .tasks import point_of
from .words import Language, Word
from .world import CHOICES, Dialog, Page, Path, Phone, World, imagine_world, view

Ending: TypeAlias = Literal["open", "turn", "fill", "buy", "press"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What there is to do on the page with a title."""

    title: Word
    target: Word | None = None
    """What to tap; nothing where the errand is done."""
    turn: bool | None = None
    """For a switch: how it should be in the end."""
    text: str = ""
    """For a field: what to type before the next one."""
    then: Word | None = None
    """What to tap once the field holds the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    said: str
    language: Language
    """The speaker's."""
    app: Word
    stages: tuple[Stage, ...]
    home_first: bool
    """Whether a wrong page is left for the home screen, not for the page before it."""
    choice: Word | None
    """What to choose in a dialog; nothing for what lets the errand go on."""
    start: Phone

    @property
    def several(self) -> bool:
        """Whether there is more to it than to open an app."""
        return len(self.stages) > 1 or self.stages[0].target is not None

    def stage(self, title: Word) -> Stage | None:
        return next((stage for stage in self.stages if stage.title == title), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One reply of a phone agent."""

    thought: str
    action: str
    """As it stands in the reply: do(…) or finish(…)."""
    element: Element | None = None
    """What is tapped."""
    seen: Word | None = None
    """The title that the step hangs on, where there is one."""
    sought: Word | None = None
    """What is looked for on the screen."""
    done: bool = False

    @property
    def reply(self) -> str:
        return f"<think>{self.thought}</think><answer>{self.action}"


# --- the policy ---

TAKE_OVER = {"zh": "请输入密码。", "en": "Please enter the password."}
ALL_DONE = {"zh": "任务完成。", "en": "The task is done."}


def next_step(errand: Errand, phone: Phone) -> Step:
    """What a good agent does now."""
    return decide(errand, view(phone))


def decide(errand: Errand, screen: Screen) -> Step:
    """What a good agent does on a screen."""
    say = _Voice(errand.language, screen.language)
    if screen.sign == "loading":
        return Step(thought=say("页面还在加载，等一下。", "It is still loading: wait."),
                    action='do(action="Wait", duration="2 seconds")')  # fmt: skip
    if screen.sign == "lock":
        message = TAKE_OVER[errand.language]
        return Step(thought=say("这里要输入密码，请你来操作。", "A password is asked for: please take over."),
                    action=f'do(action="Take_over", message="{message}")')  # fmt: skip
    if screen.panel is not None:
        choice = errand.choice or next(
            element.label for element in screen.elements if element.label in LEADING_ON
        )
        return _tap(
            screen, choice, say("有一个对话框，选择“{}”。", 'There is a dialog. Choose "{}".', choice)
        )
    if screen.title is None:
        thought = say("现在在桌面。启动“{}”。", 'This is the home screen. Launch "{}".', errand.app)
        return Step(thought=thought, action=f'do(action="Launch", app="{say.label(errand.app)}")')
    stage = errand.stage(screen.title)
    return _leave(errand, screen.title, say) if stage is None else _on_the_way(stage, screen, say)


LEADING_ON = frozenset(right for right, _ in CHOICES)
"""What to choose in a dialog where nobody says what."""


def _leave(errand: Errand, title: Word, say: _Voice) -> Step:
    if errand.home_first:
        thought = say("现在在“{}”，不对，回到桌面。", 'This is "{}", not it: go to the home screen.', title)
        return Step(thought=thought, action='do(action="Home")', seen=title)
    thought = say("现在在“{}”，不对，返回。", 'This is "{}", not it: go back.', title)
    return Step(thought=thought, action='do(action="Back")', seen=title)


def _on_the_way(stage: Stage, screen: Screen, say: _Voice) -> Step:
    if stage.target is None:
        thought = say("现在在“{}”。任务完成了。", 'This is "{}". The task is done.', stage.title)
        message = ALL_DONE[say.language]
        return Step(thought=thought, action=f'finish(message="{message}")', seen=stage.title, done=True)
    begin = say("现在在“{}”。下一步是“{}”，", 'This is "{}". Next is "{}": ', stage.title, stage.target)
    element = _find(screen, stage.target)
    if element is None:
        return _scroll(begin, stage.title, stage.target, say)
    if stage.turn is not None and element.on == stage.turn:
        return _already(begin, stage, say)
    if not stage.text or not (element.value or element.on):
        return replace(_tap(screen, stage.target, begin + say("点击它。", "tap it.")), seen=stage.title)
    if not element.value:
        thought = begin + say("输入“{}”。", 'type "{}".', stage.text)
        action = f'do(action="Type", text="{stage.text}")'
        return Step(thought=thought, action=action, seen=stage.title, sought=stage.target)
    assert stage.then is not None
    begin += say("已经输入，再找“{}”，", 'filled in, now find "{}": ', stage.then)
    if _find(screen, stage.then) is None:
        return _scroll(begin, stage.title, stage.then, say)
    return replace(_tap(screen, stage.then, begin + say("点击它。", "tap it.")), seen=stage.title)


def _scroll(begin: str, title: Word, sought: Word, say: _Voice) -> Step:
    thought = begin + say("屏幕上没有，向上滑动。", "not in view, swipe up.")
    action = 'do(action="Swipe", start=[500,800], end=[500,200])'
    return Step(thought=thought, action=action, seen=title, sought=sought)


def _already(begin: str, stage: Stage, say: _Voice) -> Step:
    assert stage.target is not None
    label, on = say.label(stage.target), stage.turn
    thought = begin + say(f"已经{'打开' if on else '关闭'}了。", f"already {'on' if on else 'off'}.")
    message = say(
        f"“{label}”已经{'打开' if on else '关闭'}了。", f"{label} is already {'on' if on else 'off'}."
    )
    action = f'finish(message="{message}")'
    return Step(thought=thought, action=action, seen=stage.title, sought=stage.target, done=True)


def _find(screen: Screen, label: Word) -> Element | None:
    return next((element for element in screen.elements if element.label == label), None)


def _tap(screen: Screen, label: Word, thought: str) -> Step:
    element = _find(screen, label)
    assert element is not None, (label, [found.label.en for found in screen.elements])
    x, y = point_of(screen, element)
    action = f'do(action="Tap", element=[{x},{y}])'
    return Step(thought=thought, action=action, element=element, sought=label)


@dataclass(frozen=True, slots=True)
class _Voice:
    """Says things in the speaker's language, with labels as the screen writes them."""

    language: Language
    labels: Language

    def __call__(self, zh: str, en: str, *labels: Word | str) -> str:
        shown = [label if isinstance(label, str) else self.label(label) for label in labels]
        return (zh if self.language == "zh" else en).format(*shown)

    def label(self, word: Word) -> str:
        return word.text(self.labels)


# --- making one up ---


@dataclass(slots=True, kw_only=True)
class _Draft:
    """An errand while it is made up."""

    rng: random.Random
    world: World
    language: Language
    stages: list[Stage] = field(default_factory=list)
    pages: dict[Path, Page] = field(default_factory=dict)
    clauses: list[str] = field(default_factory=list)
    used: set[Word] = field(default_factory=set)
    app: Word | None = None
    far: bool = False
    """Whether its pages are longer than the screen, and what is sought on them lies at their ends."""

    def new(self, pool: tuple[Word, ...]) -> Word:
        word = self.rng.choice([word for word in pool if word not in self.used])
        self.used.add(word)
        return word

    def among(self, pool: tuple[Word, ...], target: Word, counts: tuple[int, ...]) -> list[Word]:
        """The target between so many others of a page."""
        free = [word for word in pool if word not in self.used and word != target]
        found = self.rng.sample(free, min(len(free), self.rng.choice(LONG if self.far else counts)))
        found.insert(self.rng.randrange(len(found) * 2 // 3 if self.far else 0, len(found) + 1), target)
        return found

    def named(self, word: Word | str) -> str:
        """A label as a person writes it."""
        label = word if isinstance(word, str) else word.text(self.world.language)
        style = self.rng.random()
        if style < 0.45:
            return f"“{label}”" if self.language == "zh" else f'"{label}"'
        return label.lower() if style < 0.6 and not isinstance(word, str) else label

    def add(self, zh: tuple[str, ...], en: tuple[str, ...], *names: Word | str) -> None:
        said = self.rng.choice(zh if self.language == "zh" else en)
        self.clauses.append(said.format(*map(self.named, names)))


LONG = (12, 16, 20, 24)
"""Entries of a page that is longer than the screen."""
FAR_SHARE = 0.2
"""How many errands have what they seek at the end of long pages."""
OPEN_APP = (
    ("打开{}", "启动{}", "进入{}应用", "用{}", "在{}里"),
    ("open {}", "launch {}", "start {}", "in {}", "go to the {} app"),
)
OPEN_PAGE = (
    ("进入{}", "点开{}", "打开{}页面", "点击{}", "找到{}并点开"),
    ("go to {}", "open {}", "tap {}", "choose {}", "find {} and open it"),
)
TURN_ON = (("打开{}开关", "开启{}", "把{}打开"), ("turn on {}", "switch on {}", "turn {} on"))
TURN_OFF = (("关闭{}", "关掉{}", "把{}关闭"), ("turn off {}", "switch off {}", "turn {} off"))
FILL = (
    ("在{}里输入{}", "{}填{}", "把{}填成{}", "{}一栏输入{}"),
    ("set {} to {}", "in {} type {}", "fill {} with {}", "as {} enter {}"),
)
SEARCH = (("{}{}", "{}一下{}"), ("{} for {}", "{} {}"))
PRESS = (
    ("点{}", "点击{}按钮", "按{}"),
    ("tap {}", "press the {} button", "press {}", "hit {}"),
)
HOME_FIRST = (
    ("先回到桌面，再", "回到桌面，", "先返回桌面，然后"),
    ("Go to the home screen first, then ", "First go home, then ", "From the home screen, "),
)
CHOOSE = (
    ("如果弹出对话框，选{}", "有对话框就点{}", "遇到提示请选择{}"),
    ("If a dialog comes up, choose {}", "Answer any dialog with {}", "When asked, choose {}"),
)
JOINTS = (("，", "，", "，然后", "，再", "，接着"), (", ", ", then ", " and ", ", and then ", ", "))
POLITE = (("请", "帮我", "麻烦你", "", "", ""), ("Please ", "Can you ", "", "", ""))


def imagine_errand(
    rng: random.Random,
    *,
    size_px: tuple[int, int] | None = None,
    least: int = 1,
    most: int = 8,
    far_share: float = FAR_SHARE,
) -> Errand:
    """An errand with a phone to run it on, that takes so many steps by the shortest way. Only to open an app
    is a single command, which launches it from anywhere; as an errand it begins at home, where both are one.
    """
    while True:
        errand = _imagine(rng, size_px, far=rng.random() < far_share)
        if errand is None or (not errand.several and errand.start.path):
            continue
        if least <= shortest(errand, most + 1) <= most:
            return errand


def shortest(errand: Errand, at_most: int = 30) -> int:
    """Steps of a good agent from the start to its word that it is done."""
    phone = errand.start
    for count in range(1, at_most + 1):
        step = next_step(errand, phone)
        if step.done:
            return count
        phone = carry_out(phone, step)
    return at_most + 1


def carry_out(phone: Phone, step: Step) -> Phone:
    """What the phone is after a right step."""
    from .actions import apply, parse

    action = parse(step.action)
    return apply(phone, action)


def _imagine(
    rng: random.Random, size_px: tuple[int, int] | None, screen: Screen | None = None, *, far: bool = False
) -> Errand | None:
    world = imagine_world(rng, size_px=size_px)
    if screen is not None:
        world = replace(world, language=screen.language)
    language = world.language if rng.random() < 0.9 else ("en" if world.language == "zh" else "zh")
    draft = _Draft(rng=rng, world=world, language=language, far=far)
    if screen is not None and screen.title is not None and screen.panel is None and rng.random() < 0.85:
        _fitting(draft, screen)
    else:
        _wander(draft, screen)
    choice = _obstacles(draft)
    if screen is not None and screen.panel is not None:
        known = [element.label for element in screen.elements if element.label in LEADING_ON]
        if len(known) != 1 or rng.random() < 0.5:
            choice = rng.choice(screen.elements).label
            if choice in draft.used:
                return None
        else:
            choice = None
    home_first = rng.random() < 0.2
    app = draft.app
    assert app is not None
    apps = world.apps if app in world.apps or rng.random() < 0.3 else (*world.apps[1:], app)
    barred = frozenset(draft.used | {word for stage in draft.stages for word in (stage.title,)})
    world = replace(world, apps=apps, pages=draft.pages, barred=barred)
    errand = Errand(
        said=_sentence(draft, home_first, choice),
        language=language,
        app=app,
        stages=tuple(draft.stages),
        home_first=home_first,
        choice=choice,
        start=Phone(world=world, minute=rng.randrange(1440)),
    )
    return errand if screen is not None else replace(errand, start=_start(errand, rng))


def _wander(draft: _Draft, screen: Screen | None) -> None:
    """An app, pages of it, and something to do there; none of them named as the page on the screen."""
    rng = draft.rng
    if screen is not None and screen.title is not None:
        draft.used.add(screen.title)
    draft.app = draft.new(words.APPS)
    draft.add(*OPEN_APP, draft.app)
    path: Path = (draft.app,)
    more: tuple[Ending, ...] = ("buy", "buy") if draft.far else ()
    ending: Ending = rng.choice(("open", "turn", "turn", "fill", "buy", "press", *more))
    for _ in range(rng.choice((0, 0, 1, 1, 2)) if ending != "open" else rng.choice((0, 1, 1, 2, 3))):
        path = _through(draft, path)
    _ENDINGS[ending](draft, path)


def _sentence(draft: _Draft, home_first: bool, choice: Word | None) -> str:
    rng, side = draft.rng, 0 if draft.language == "zh" else 1
    said = draft.clauses[0]
    for clause in draft.clauses[1:]:
        said += rng.choice(JOINTS[side]) + clause
    said = (rng.choice(HOME_FIRST[side]) if home_first else rng.choice(POLITE[side])) + said
    stop = "。" if side == 0 else ". "
    if choice is not None:
        said += stop + rng.choice(CHOOSE[side]).format(draft.named(choice))
    if rng.random() < 0.5:
        said += stop.strip()
    return said[0].upper() + said[1:] if side and rng.random() < 0.7 else said


def _list_with(draft: _Draft, title: Word, target: Word, *, switch: bool = False, on: bool = False) -> Page:
    """A list that holds the target, mostly in view."""
    rng = draft.rng
    entries = draft.among(words.SETTINGS, target, (3, 5, 6, 7, 8, 9, 12, 16, 20, 24))
    switches = [word for word in entries if rng.random() < 0.3 and word != target] + [target] * switch
    ons = [word for word in switches if rng.random() < 0.5 and word != target] + [target] * on
    return Page(
        kind="list", title=title, entries=tuple(entries), switches=frozenset(switches), on=frozenset(ons)
    )


def _through(draft: _Draft, path: Path) -> Path:
    target = draft.new(words.SETTINGS)
    draft.pages[path] = _list_with(draft, path[-1], target)
    draft.stages.append(Stage(title=path[-1], target=target))
    draft.add(*OPEN_PAGE, target)
    return (*path, target)


def _open(draft: _Draft, path: Path) -> None:
    draft.stages.append(Stage(title=path[-1]))
    draft.pages[path] = _list_with(draft, path[-1], draft.new(words.SETTINGS))


def _turn(draft: _Draft, path: Path) -> None:
    target, on = draft.new(words.SETTINGS), draft.rng.random() < 0.5
    is_on = on if draft.rng.random() < 0.12 else not on
    draft.pages[path] = _list_with(draft, path[-1], target, switch=True, on=is_on)
    draft.stages.append(Stage(title=path[-1], target=target, turn=on))
    draft.add(*(TURN_ON if on else TURN_OFF), target)


def _text(draft: _Draft) -> str:
    from .tasks import invented

    rng, language = draft.rng, draft.world.language
    if rng.random() < 0.4:
        return invented(language, rng)
    said = rng.choice((*words.TYPED, *words.ITEMS)).text(language)
    return said.lower() if language == "en" else said


def _finish_with(draft: _Draft, path: Path) -> None:
    draft.pages[path] = Page(kind="done", title=path[-1])
    draft.stages.append(Stage(title=path[-1]))


def _fill(draft: _Draft, path: Path) -> None:
    rng = draft.rng
    target, button, text = draft.new(words.FIELDS), draft.new(words.BUTTONS), _text(draft)
    fields = [target, *rng.sample([word for word in words.FIELDS if word != target], rng.randrange(0, 3))]
    buttons = [
        button,
        *rng.sample([word for word in words.BUTTONS if word not in draft.used], rng.randrange(0, 3)),
    ]
    rng.shuffle(fields)
    rng.shuffle(buttons)
    draft.pages[path] = Page(kind="form", title=path[-1], fields=tuple(fields), entries=tuple(buttons))
    draft.stages.append(Stage(title=path[-1], target=target, text=text, then=button))
    draft.add(*FILL, target, text)
    draft.add(*PRESS, button)
    _finish_with(draft, (*path, button))


def _press(draft: _Draft, path: Path) -> None:
    rng = draft.rng
    button = draft.new(words.BUTTONS)
    buttons = [
        button,
        *rng.sample([word for word in words.BUTTONS if word not in draft.used], rng.randrange(0, 4)),
    ]
    rng.shuffle(buttons)
    draft.pages[path] = Page(kind="item", title=path[-1], entries=tuple(buttons))
    draft.stages.append(Stage(title=path[-1], target=button))
    draft.add(*PRESS, button)
    _finish_with(draft, (*path, button))


def _buy(draft: _Draft, path: Path) -> None:
    """Search for something in a shop and open it; often press a button there."""
    rng = draft.rng
    thing, text = draft.new(words.ITEMS), _text(draft)
    things = draft.among(words.ITEMS, thing, (3, 5, 7, 9, 13))
    draft.pages[path] = Page(kind="shop", title=path[-1], fields=(words.SEARCH,), entries=tuple(things))
    draft.stages.append(Stage(title=path[-1], target=words.SEARCH, text=text, then=thing))
    draft.used.add(words.SEARCH)
    draft.add(*SEARCH, words.SEARCH.text(draft.world.language), text)
    draft.add(*OPEN_PAGE, thing)
    if rng.random() < 0.6:
        _press(draft, (*path, thing))
        return
    others = rng.sample([word for word in words.BUTTONS if word not in draft.used], 3)
    draft.pages[(*path, thing)] = Page(kind="item", title=thing, entries=tuple(others))
    draft.stages.append(Stage(title=thing))


_ENDINGS = {"open": _open, "turn": _turn, "fill": _fill, "buy": _buy, "press": _press}


def _obstacles(draft: _Draft) -> Word | None:
    """Pages that load, ask, or want a password. Returns what the speaker says to choose."""
    rng = draft.rng
    choice = None
    chosen = rng.random() < 0.25
    for path, page in list(draft.pages.items()):
        waits = rng.choice((1, 1, 2)) if rng.random() < 0.15 else 0
        locked = rng.random() < 0.06
        dialog = None
        if (
            rng.random() < (0.5 if chosen else 0.15)
            and page.kind != "done"
            and (choice is None or not chosen)
        ):
            right, wrong = rng.choice(CHOICES)
            if not {right, wrong} & draft.used:
                buttons = [right, wrong]
                rng.shuffle(buttons)
                if chosen:
                    right = choice = rng.choice(buttons)
                dialog = Dialog(
                    title=rng.choice(words.APPS + words.SETTINGS),
                    line=rng.choice(words.DIALOG_LINES),
                    buttons=tuple(buttons),
                    right=right,
                )
        draft.pages[path] = replace(page, waits=waits, locked=locked, dialog=dialog)
    if choice is not None:
        draft.used.add(choice)
    return choice


def errand_on(screen: Screen, rng: random.Random) -> Errand:
    """An errand that somebody might be running with this screen in front of them: at a step of its way, at
    its end, or lost.
    """
    while True:
        errand = _imagine(rng, screen.size_px, screen)
        if errand is not None and (errand.several or screen.layout == "home"):
            return errand


def _fitting(draft: _Draft, screen: Screen) -> None:
    """Clauses that lead over the screen's page."""
    rng = draft.rng
    title = screen.title
    assert title is not None
    draft.used.add(title)
    if title in words.APPS and rng.random() < 0.8:
        draft.app = title
        draft.add(*OPEN_APP, title)
    else:
        draft.app = draft.new(words.APPS)
        draft.add(*OPEN_APP, draft.app)
        before = draft.app
        for target in (*(draft.new(words.SETTINGS) for _ in range(rng.choice((0, 0, 1)))), title):
            draft.stages.append(Stage(title=before, target=target))
            draft.add(*OPEN_PAGE, target)
            before = target
    if screen.sign == "done" or rng.random() < 0.15:
        draft.stages.append(Stage(title=title))
        return
    free = [element for element in screen.elements if element.label not in draft.used]
    draft.used |= {element.label for element in free}
    filled = [element for element in free if element.value]
    element = rng.choice(free) if free and rng.random() < 0.8 else None
    if filled and rng.random() < 0.7:
        element = rng.choice(filled)
    target = element.label if element else draft.new(words.SETTINGS)
    if element is not None and element.kind == "field":
        buttons = [other.label for other in free if other.kind in ("button", "row") and other != element]
        searched = target == words.SEARCH
        beyond = draft.new(words.ITEMS if searched else words.BUTTONS)
        then = rng.choice(buttons) if buttons and rng.random() < 0.6 else beyond
        text = _text(draft)
        draft.stages.append(Stage(title=title, target=target, text=text, then=then))
        draft.add(*(SEARCH if searched else FILL), target, text)
        draft.add(*(OPEN_PAGE if searched else PRESS), then)
        draft.stages.append(Stage(title=then))
        return
    if (element is not None and element.kind == "switch") or (element is None and rng.random() < 0.4):
        on = rng.random() < 0.5
        draft.stages.append(Stage(title=title, target=target, turn=on))
        draft.add(*(TURN_ON if on else TURN_OFF), target)
        return
    draft.stages.append(Stage(title=title, target=target))
    draft.add(*(PRESS if element is not None and element.kind == "button" else OPEN_PAGE), target)
    if rng.random() < 0.5:
        draft.stages.append(Stage(title=target))
    else:
        _ENDINGS[rng.choice(("turn", "fill", "press", "buy"))](draft, (draft.app, target))


def _start(errand: Errand, rng: random.Random) -> Phone:
    """Where the errand begins: mostly at home, sometimes lost, sometimes half way."""
    phone = errand.start
    world = phone.world
    chance = rng.random()
    if chance < 0.6:
        return phone
    if chance < 0.85:
        strangers = [app for app in world.apps if app not in world.barred]
        path: Path = (rng.choice(strangers),)
        if rng.random() < 0.5:
            path = _deeper(world, path, rng)
        return phone.go(path)
    step_count = rng.randrange(1, 4)
    for _ in range(step_count):
        step = next_step(errand, phone)
        if step.done:
            break
        phone = carry_out(phone, step)
    return phone


def _deeper(world: World, path: Path, rng: random.Random) -> Path:
    page = world.page(path)
    ways = [word for word in page.entries if word not in page.switches]
    return (*path, rng.choice(ways)) if ways else path
