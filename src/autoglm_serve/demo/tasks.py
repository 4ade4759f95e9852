"""What is asked about a screen, and the right answer.

Owns the wording of instructions and answers in both languages, and the format of a phone agent's actions:
coordinates run from 0 to 999 in both directions. Knows nothing of pixels, models or grading.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from . import words
from .screens import WIDTH, Element, Kind, Screen
from .words import Language, Word

Task: TypeAlias = Literal["tap", "action", "question"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One instruction and the reply that is right."""

    task: Task
    instruction: str
    answer: str
    """What is inside <answer> for actions, the whole reply for questions."""
    thought: str | None = None
    target: tuple[int, int, int, int] | None = None
    """For taps: left, top, right, bottom in thousandths of the screen."""
    needs_screen: bool = True
    about: Word | None = None
    """The label on the screen that the answer hangs on, or words.CLOCK, where there is one."""

    @property
    def reply(self) -> str:
        """The whole text that the model should write; where it acts, </answer> ends it unwritten."""
        if self.thought is None:
            return self.answer
        return f"<think>{self.thought}</think><answer>{self.answer}"


def ask(task: Task, screen: Screen, rng: random.Random) -> Case:
    """One case of a kind. Screens that lack what a kind of case needs get another case of the same kind."""
    makers = _MAKERS[task]
    while True:
        case = rng.choices([maker for maker, _ in makers], [weight for _, weight in makers])[0](screen, rng)
        if case is not None:
            return case


def _language(screen: Screen, rng: random.Random) -> Language:
    """People mostly speak the language of their phone."""
    if rng.random() < 0.9:
        return screen.language
    return "en" if screen.language == "zh" else "zh"


def _name(screen: Screen, word: Word, language: Language, rng: random.Random) -> str:
    """A label as a person writes it: plain, quoted, or without capitals."""
    label = word.text(screen.language)
    style = rng.random()
    if style < 0.3:
        return f"“{label}”" if language == "zh" else f'"{label}"'
    return label.lower() if style < 0.6 else label


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spoken:
    """An element that somebody speaks of."""

    element: Element
    label: str
    """As the screen shows it."""
    language: Language
    """The speaker's."""
    name: str
    """As the speaker writes the label."""


def _speak_of(screen: Screen, kind: Kind, rng: random.Random) -> _Spoken | None:
    """Any element of a kind; nothing where the screen has none."""
    elements = screen.find(kind)
    if not elements:
        return None
    element = rng.choice(elements)
    language = _language(screen, rng)
    return _Spoken(
        element=element,
        label=element.label.text(screen.language),
        language=language,
        name=_name(screen, element.label, language, rng),
    )


def _tap(
    screen: Screen, element: Element, instruction: str, thought: str, task: Task = "tap", name: str = "Tap"
) -> Case:
    box = element.box
    x, y = box.centre
    left, top = thousandths(screen, box.left, box.top)
    right, bottom = thousandths(screen, box.right, box.bottom)
    point = thousandths(screen, x, y)
    return Case(
        task=task,
        instruction=instruction,
        thought=thought,
        answer=f'do(action="{name}", element=[{point[0]},{point[1]}])',
        target=(left, top, right, bottom),
        about=element.label,
    )


def point_of(screen: Screen, element: Element) -> tuple[int, int]:
    """Where an element is tapped, in thousandths."""
    return thousandths(screen, *element.box.centre)


def thousandths(screen: Screen, x: float, y: float) -> tuple[int, int]:
    """A point in units of the layout, as an action writes it."""
    return _clip(1000 * x / WIDTH), _clip(1000 * y / screen.height)


def _clip(value: float) -> int:
    return max(0, min(999, round(value)))


# --- taps ---

TAP_ZH = ("点击{}", "点一下{}", "请点击{}", "按一下{}", "选择{}", "帮我点{}", "轻触{}")
TAP_EN = ("Tap {}", "Click {}", "Press {}", "Select {}", "Please tap {}", "Touch {}", "tap on {}")


def _tap_label(screen: Screen, rng: random.Random) -> Case | None:
    element = rng.choice(screen.elements) if screen.elements else None
    if element is None:
        return None
    language = _language(screen, rng)
    label = element.label.text(screen.language)
    said = rng.choice(TAP_ZH if language == "zh" else TAP_EN).format(
        _name(screen, element.label, language, rng)
    )
    thought = f"点击“{label}”。" if language == "zh" else f'Tap "{label}".'
    return _tap(screen, element, said, thought)


def _tap_colour(screen: Screen, rng: random.Random) -> Case | None:
    buttons = screen.find("button")
    if not buttons:
        return None
    element = rng.choice(buttons)
    colour = words.COLOURS[element.colour or 0]
    if _language(screen, rng) == "zh":
        said = rng.choice(("点击{}按钮", "点一下{}的按钮", "按{}按钮")).format(colour.zh)
        return _tap(screen, element, said, f"点击{colour.zh}按钮。")
    said = rng.choice(("Tap the {} button", "Click the {} button", "Press the {} button")).format(colour.en)
    return _tap(screen, element, said, f"Tap the {colour.en} button.")


# --- actions ---

HOLDS: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    "Long Press": ("长按“{}”。", 'Hold "{}".', ("长按{}", "按住{}不放"), ("Long press {}", "Hold {}")),
    "Double Tap": (
        "双击“{}”。", 'Double tap "{}".', ("双击{}", "连点两下{}"), ("Double tap {}", "Tap {} twice"),
    ),
}  # fmt: skip


def _hold(screen: Screen, rng: random.Random) -> Case | None:
    """Touch an element longer, or twice."""
    if not screen.elements:
        return None
    element, language = rng.choice(screen.elements), _language(screen, rng)
    name, (zh, en, said_zh, said_en) = rng.choice(list(HOLDS.items()))
    label = element.label.text(screen.language)
    said = rng.choice(said_zh if language == "zh" else said_en).format(
        _name(screen, element.label, language, rng)
    )
    return _tap(screen, element, said, (zh if language == "zh" else en).format(label), "action", name)


def _wait(screen: Screen, rng: random.Random) -> Case:
    answer = 'do(action="Wait", duration="2 seconds")'
    if _language(screen, rng) == "zh":
        return _act(rng.choice(("等一下", "等两秒", "稍等一会儿")), "等一下。", answer)
    return _act(rng.choice(("Wait a moment", "Wait", "Please wait two seconds")), "Wait a moment.", answer)


def _act(instruction: str, thought: str, answer: str, *, needs_screen: bool = False) -> Case:
    return Case(
        task="action", instruction=instruction, thought=thought, answer=answer, needs_screen=needs_screen
    )


SWIPES: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    "start=[500,800], end=[500,200]": (
        "向上滑动。", "Swipe up.", ("向上滑动", "往上滑", "上滑", "向下翻页"),
        ("Swipe up", "Scroll down", "swipe upwards"),
    ),
    "start=[500,200], end=[500,800]": (
        "向下滑动。", "Swipe down.", ("向下滑动", "往下滑", "下拉", "向上翻页"),
        ("Swipe down", "Scroll up", "swipe downwards"),
    ),
    "start=[900,500], end=[100,500]": (
        "向左滑动。", "Swipe left.", ("向左滑动", "往左滑", "左滑"),
        ("Swipe left", "Scroll right", "swipe to the left"),
    ),
    "start=[100,500], end=[900,500]": (
        "向右滑动。", "Swipe right.", ("向右滑动", "往右滑", "右滑"),
        ("Swipe right", "Scroll left", "swipe to the right"),
    ),
}  # fmt: skip


def _swipe(screen: Screen, rng: random.Random) -> Case:
    argument, (zh, en, said_zh, said_en) = rng.choice(list(SWIPES.items()))
    answer = f'do(action="Swipe", {argument})'
    if _language(screen, rng) == "zh":
        return _act(rng.choice(said_zh), zh, answer)
    return _act(rng.choice(said_en), en, answer)


def _type(screen: Screen, rng: random.Random) -> Case:
    language = _language(screen, rng)
    typed = rng.choice((*words.TYPED, *words.ITEMS)).text(language)
    if language == "en":
        typed = typed.lower()
    if rng.random() < 0.25:
        typed = invented(language, rng)
    if language == "zh":
        said = rng.choice(("输入{}", "请输入“{}”", "在输入框里输入{}", "键入{}", "打字：{}")).format(typed)
        return _act(said, f"输入“{typed}”。", f'do(action="Type", text="{typed}")')
    said = rng.choice(("Type {}", 'Type "{}"', "Enter {}", "Write {}", "Please type {}")).format(typed)
    return _act(said, f'Type "{typed}".', f'do(action="Type", text="{typed}")')


def invented(language: Language, rng: random.Random) -> str:
    """A text nobody listed: copying has to be learned, not a table."""
    if language == "zh":
        letters = "".join(word.zh for word in words.ALL)
        return "".join(rng.choice(letters) for _ in range(rng.randrange(2, 7)))
    if rng.random() < 0.4:
        return "".join(rng.choice("0123456789") for _ in range(rng.randrange(3, 9)))
    return " ".join(rng.choice(words.ALL).en.lower() for _ in range(rng.randrange(1, 4)))


def _back(screen: Screen, rng: random.Random) -> Case:
    if _language(screen, rng) == "zh":
        said = rng.choice(("返回", "返回上一页", "后退", "回到上一页", "退回去"))
        return _act(said, "返回上一页。", 'do(action="Back")')
    return _act(rng.choice(("Go back", "Back", "Return to the previous page", "go back please")), "Go back.",
                'do(action="Back")')  # fmt: skip


def _go_home(screen: Screen, rng: random.Random) -> Case:
    if _language(screen, rng) == "zh":
        said = rng.choice(("回到桌面", "返回桌面", "回桌面", "回到主屏幕"))
        return _act(said, "回到桌面。", 'do(action="Home")')
    said = rng.choice(("Go home", "Go to the home screen", "Home", "return to the home screen"))
    return _act(said, "Go to the home screen.", 'do(action="Home")')


def _launch(screen: Screen, rng: random.Random) -> Case:
    app = rng.choice(words.APPS)
    language = _language(screen, rng)
    name = app.text(language)
    if language == "zh":
        said = rng.choice(("打开{}", "启动{}", "请打开{}", "打开{}应用", "运行{}")).format(name)
        return _act(said, f"启动“{name}”。", f'do(action="Launch", app="{name}")')
    said_name = name if rng.random() < 0.6 else name.lower()
    said = rng.choice(("Open {}", "Launch {}", "Start {}", "Open the {} app", "Please open {}")).format(
        said_name
    )
    return _act(said, f'Launch "{name}".', f'do(action="Launch", app="{name}")')


def _turn(screen: Screen, rng: random.Random) -> Case | None:
    """Turn something on or off: a tap where it is needed, finish where it is already so."""
    spoken = _speak_of(screen, "switch", rng)
    if spoken is None:
        return None
    element, label, name = spoken.element, spoken.label, spoken.name
    wanted = rng.random() < 0.5
    if spoken.language == "zh":
        said = rng.choice(("打开{}开关", "开启{}") if wanted else ("关闭{}", "关掉{}")).format(name)
        done = f"“{label}”已经{'打开' if wanted else '关闭'}了。"
        thought = f"{'打开' if wanted else '关闭'}“{label}”。"
    else:
        said = rng.choice(
            ("Turn on {}", "Switch on {}") if wanted else ("Turn off {}", "Switch off {}")
        ).format(name)
        done = f"{label} is already {'on' if wanted else 'off'}."
        thought = f'Turn {"on" if wanted else "off"} "{label}".'
    if element.on == wanted:
        return _act(said, done, f'finish(message="{done}")', needs_screen=True)
    return _tap(screen, element, said, thought, task="action")


def _missing(screen: Screen, rng: random.Random) -> Case:
    """Asked to tap what is not there."""
    word = _absent(screen, rng)
    language = _language(screen, rng)
    label = word.text(screen.language)
    said = rng.choice(TAP_ZH if language == "zh" else TAP_EN).format(_name(screen, word, language, rng))
    message = f"屏幕上没有“{label}”。" if language == "zh" else f"There is no '{label}' on the screen."
    return _act(said, message, f'finish(message="{message}")', needs_screen=True)


def _absent(screen: Screen, rng: random.Random) -> Word:
    there = {element.label for element in screen.elements} | {screen.title}
    return rng.choice([word for word in words.ALL if word not in there])


CANNOT_SEE = {
    "zh": "这个屏幕上看不到我认识的内容。",
    "en": "I cannot see anything that I know on this screen.",
}
"""The answer to a screen of another world."""


def cannot_see(language: Language) -> str:
    """The whole reply of an agent that is lost."""
    thought = "看不到认识的内容。" if language == "zh" else "There is nothing here that I know."
    return f'<think>{thought}</think><answer>finish(message="{CANNOT_SEE[language]}")'


def _done(screen: Screen, rng: random.Random) -> Case:
    if _language(screen, rng) == "zh":
        said = rng.choice(("任务完成了", "已经做完了", "没有别的事了"))
        return _act(said, "任务完成。", 'finish(message="任务完成。")')
    said = rng.choice(("The task is done", "All done", "Nothing else to do"))
    return _act(said, "The task is done.", 'finish(message="The task is done.")')


# --- questions ---


def _question(instruction: str, answer: str, about: Word | None = None) -> Case:
    return Case(task="question", instruction=instruction, answer=answer, about=about)


def _is_on(screen: Screen, rng: random.Random) -> Case | None:
    spoken = _speak_of(screen, "switch", rng)
    if spoken is None:
        return None
    element, label, name = spoken.element, spoken.label, spoken.name
    if spoken.language == "zh":
        said = rng.choice(("{}打开了吗？", "{}是开着的吗？", "{}开了没有？")).format(name)
        return _question(said, f"“{label}”{'已打开' if element.on else '已关闭'}。", element.label)
    said = rng.choice(("Is {} on?", "Is {} turned on?", "Is {} enabled?")).format(name)
    return _question(said, f"{label} is {'on' if element.on else 'off'}.", element.label)


def _page(screen: Screen, rng: random.Random) -> Case | None:
    if screen.title is None:
        return None
    title = screen.title.text(screen.language)
    if _language(screen, rng) == "zh":
        return _question(
            rng.choice(("标题是什么？", "这个页面的标题是什么？")), f"标题是“{title}”。", screen.title
        )
    return _question(
        rng.choice(("What is the title?", "What is the title of this page?")),
        f'The title is "{title}".',
        screen.title,
    )


def _is_there(screen: Screen, rng: random.Random) -> Case | None:
    if not screen.elements:
        return None
    there = rng.random() < 0.5
    word = rng.choice(screen.elements).label if there else _absent(screen, rng)
    label = word.text(screen.language)
    language = _language(screen, rng)
    name = _name(screen, word, language, rng)
    if language == "zh":
        said = rng.choice(("屏幕上有{}吗？", "有没有{}？", "能看到{}吗？")).format(name)
        return _question(said, f"屏幕上{'有' if there else '没有'}“{label}”。", word if there else None)
    said = rng.choice(("Is there {} on the screen?", "Can you see {}?", "Do you see {}?")).format(name)
    answer = f'Yes, "{label}" is on the screen.' if there else f'No, "{label}" is not on the screen.'
    return _question(said, answer, word if there else None)


def _colour_of(screen: Screen, rng: random.Random) -> Case | None:
    spoken = _speak_of(screen, "button", rng)
    if spoken is None:
        return None
    element, label, name = spoken.element, spoken.label, spoken.name
    colour = words.COLOURS[element.colour or 0]
    if spoken.language == "zh":
        said = rng.choice(("{}按钮是什么颜色？", "{}是什么颜色的？")).format(name)
        return _question(said, f"“{label}”按钮是{colour.zh}的。", element.label)
    said = rng.choice(("What colour is the {} button?", "What color is {}?")).format(name)
    return _question(said, f'The "{label}" button is {colour.en}.', element.label)


def _how_many(screen: Screen, rng: random.Random) -> Case | None:
    nouns: tuple[tuple[Kind, str, str], ...] = (("button", "按钮", "buttons"), ("tab", "标签", "tabs"))
    kind, zh, en = rng.choice(nouns)
    count = len(screen.find(kind))
    if not count:
        return None
    if _language(screen, rng) == "zh":
        return _question(rng.choice(("屏幕上有几个{}？", "有几个{}？")).format(zh), f"有{count}个{zh}。")
    said = rng.choice(("How many {} are there?", "How many {} are on the screen?")).format(en)
    return _question(said, f"There {'is' if count == 1 else 'are'} {count} {en if count > 1 else en[:-1]}.")


def _which_tab(screen: Screen, rng: random.Random) -> Case | None:
    chosen: Element | None = next((element for element in screen.find("tab") if element.on), None)
    if chosen is None:
        return None
    label = chosen.label.text(screen.language)
    if _language(screen, rng) == "zh":
        return _question(
            rng.choice(("现在在哪个标签？", "选中的是哪个标签？")), f"选中的是“{label}”。", chosen.label
        )
    return _question(
        rng.choice(("Which tab is selected?", "Which tab is active?")),
        f'"{label}" is selected.',
        chosen.label,
    )


def _is_dark(screen: Screen, rng: random.Random) -> Case | None:
    if screen.panel is not None:
        return None
    if _language(screen, rng) == "zh":
        said = rng.choice(("屏幕是深色的还是浅色的？", "现在是深色界面吗？"))
        return _question(said, f"屏幕是{'深色' if screen.dark else '浅色'}的。")
    said = rng.choice(("Is the screen dark or light?", "Is this a dark theme?"))
    return _question(said, f"The screen is {'dark' if screen.dark else 'light'}.")


def _what_time(screen: Screen, rng: random.Random) -> Case:
    if _language(screen, rng) == "zh":
        return _question(
            rng.choice(("现在几点？", "屏幕上的时间是多少？", "几点了？")),
            f"现在是{screen.clock}。",
            words.CLOCK,
        )
    said = rng.choice(("What time is it?", "What is the time on the screen?"))
    return _question(said, f"It is {screen.clock}.", words.CLOCK)


_Maker: TypeAlias = Callable[[Screen, random.Random], Case | None]
_MAKERS: dict[Task, tuple[tuple[_Maker, float], ...]] = {
    "tap": ((_tap_label, 8), (_tap_colour, 1)),
    "action": (
        (_swipe, 1), (_type, 2), (_back, 1), (_go_home, 1), (_launch, 2), (_turn, 2), (_missing, 2),
        (_done, 0.5), (_hold, 1), (_wait, 0.5),
    ),
    "question": (
        (_is_on, 2), (_page, 2), (_is_there, 2), (_colour_of, 2), (_how_many, 1), (_which_tab, 1.5),
        (_is_dark, 1), (_what_time, 1),
    ),
}  # fmt: skip
