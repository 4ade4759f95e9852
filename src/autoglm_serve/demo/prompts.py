"""System prompts of any wording and length, and other text that must change nothing.

Owns the grammar that they are made of: date lines, roles, catalogues of actions, rules, examples, notes, in
Chinese and English. Everything is made up here. One frame in four is held out: training never reads it, the
evaluation reads nothing else. Knows nothing of models or tokens; a length is in characters.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from . import words
from .words import Language

HELD_OUT_EVERY = 4


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_NOUNS_ZH = _listed("""
    页面 按钮 列表 弹窗 键盘 状态栏 输入框 应用 桌面 通知 广告 登录框 验证码 开关 图标 标题 菜单
    标签 卡片 订单 商品 价格 评论 联系人 聊天 视频 图片 文件 网络 账号 权限 截图 坐标 步骤 任务 目标
    结果 历史 用户 手机 助手 搜索框 购物车 地址 优惠券 会话 进度条 提示语 日期 时间 城市 车次 航班
    座位 店铺 评分 距离 音量 屏幕 边缘 角落 中心 文字 颜色 选项 备注 数量
""")
_NOUNS_EN = _listed("""
    page button list popup keyboard toolbar field application desktop notification advert login code
    switch icon title menu tab card order product price comment contact chat video picture file
    network account permission screenshot coordinate step task goal result history user phone
    assistant basket address voucher session banner hint date hour city train flight seat store
    rating distance volume screen edge corner centre text colour option remark quantity sidebar
    widget gesture overlay bubble slider
""")
_VERBS_ZH = _listed("""
    检查 点击 关闭 等待 返回 滑动 输入 确认 忽略 记录 比较 选择 打开 查找 避免 重复 完成 停止 说明
    遵守 判断 观察 调整 跳过 尝试 处理 阅读 核对 保留 删除 汇报 分析 更新 刷新 切换 定位 拆分 总结
""")
_VERBS_EN = _listed("""
    check tap close await leave swipe enter confirm ignore record compare select open find avoid
    repeat finish stop explain follow judge observe adjust skip try handle read verify keep delete
    report analyse update refresh switch locate split summarise inspect prefer describe
""")
_MANNERS_ZH = _listed("""
    仔细 立即 最后 首先 通常 尽量 严格 逐步 直接 耐心 准确 简短 完整 主动 谨慎 一次 多次 始终
""")
_MANNERS_EN = _listed("""
    carefully immediately finally first usually always strictly gradually directly patiently
    precisely briefly completely once repeatedly calmly quietly twice
""")

_FRAMES_ZH = (
    "如果{n}没有出现，请{m}{v}{n}。", "在{v}之前，必须{v}当前的{n}。", "当{n}不相关时，{v}它并{v}{n}。",
    "不要{m}{v}{n}，除非用户要求{v}。", "遇到{n}时，先{v}，再{v}{n}。", "每一步只能{v}一个{n}。",
    "如果连续{k}次{v}失败，就{v}{n}。", "{n}和{n}不一致时，以{n}为准。", "请{m}{v}{n}，不要遗漏{n}。",
    "对于{n}类的任务，可以{v}多个{n}。", "若{n}在{n}的下方，请{m}{v}。", "{v}{n}后，应当{v}{n}是否生效。",
    "{n}加载较慢，最多{v}{k}秒。", "涉及{n}的操作，需要{m}{v}。", "没有{n}的时候，允许{v}{n}。",
    "用户的{n}优先于{n}。", "任务中的“{a}”只是一个名字。", "{n}可能在屏幕的({k},{k})附近，但以截图为准。",
    "凡是{n}，一律{m}{v}。", "若要{v}{n}，应{m}{v}{n}再继续。", "{n}的数量超过{k}个时，{v}前{k}个。",
    "记住：{n}不是{n}。", "当前应用为“{a}”时，注意{v}{n}。", "不得{v}与{n}无关的{n}。",
    "完成后请{m}{v}{n}并给出{n}。", "只有{n}存在时才{v}。", "先{v}{n}，若不行再{v}{n}。",
    "{m}{v}，{m}{v}，然后{v}{n}。", "请注意{n}中的{n}，它可能需要{v}。", "任何{n}都不应影响{n}。",
    "如果提示{n}错误，{v}后重新{v}。", "一般来说，{n}位于{n}旁边。",
)  # fmt: skip
_FRAMES_EN = (
    "If the {n} does not appear, {m} {v} the {n}.", "Before you {v}, you must {v} the current {n}.",
    "When a {n} is irrelevant, {v} it and {v} the {n}.",
    "Do not {m} {v} the {n} unless the user asks to {v}.", "On a {n}, {v} first and then {v} the {n}.",
    "Each step may {v} one {n} only.", "After {k} failures to {v}, {v} the {n}.",
    "When {n} and {n} disagree, trust the {n}.", "Please {m} {v} every {n} and never miss a {n}.",
    "For tasks about a {n} you can {v} several {n}s.", "If the {n} is below the {n}, {m} {v}.",
    "Having used the {n}, {v} whether the {n} changed.",
    "A {n} may load slowly: {v} for {k} seconds at most.", "Whatever touches a {n} must {m} {v}.",
    "Where there is no {n}, it is fine to {v} the {n}.", "The {n} of the user outranks any {n}.",
    'A word like "{a}" in a task is just a name.',
    "The {n} may be near ({k},{k}), yet trust the screenshot.",
    "Any {n} is to be treated alike: {m} {v}.", "To {v} a {n}, {m} {v} the {n} and go on.",
    "With more than {k} {n}s, {v} the first {k}.", "Remember: a {n} is no {n}.",
    'While "{a}" is open, {v} the {n}.', "Never {v} a {n} that is unrelated to the {n}.",
    "In the end, {m} {v} the {n} and give the {n}.", "Only {v} where a {n} exists.",
    "First {v} the {n}; if that fails, {v} the {n}.", "{m} {v}, {m} {v}, then {v} the {n}.",
    "Mind the {n} in the {n}; it may need you to {v}.", "No {n} should affect a {n}.",
    "If a {n} error shows, {v} and then {v} again.", "As a rule the {n} sits beside the {n}.",
)  # fmt: skip
_ROLES_ZH = (
    "你是一个操作手机的智能助手。", "你负责根据截图完成用户的任务。",
    "你是手机自动化专家，每次只执行一步。", "作为移动端代理，你会看到屏幕并给出下一步。",
    "你的工作是替用户使用安卓手机。", "现在由你控制这部手机。", "你是一名经验丰富的手机操作员。",
    "扮演一个可靠的手机管家。",
)  # fmt: skip
_ROLES_EN = (
    "You are an assistant that operates a phone.", "You complete the user's task from screenshots.",
    "You are an expert of phone automation and act one step at a time.",
    "As a mobile agent you see the screen and give the next step.",
    "Your job is to use an Android phone for somebody.", "You now control this handset.",
    "You are a seasoned operator of smartphones.", "Act as a dependable keeper of the user's phone.",
)  # fmt: skip
_FORMS_ZH = (
    "输出必须是：\n<think>{{想法}}</think>\n<answer>{{动作}}</answer>",
    "请先思考再回答，格式为 <think>…</think><answer>…</answer>。",
    "回答由两部分组成：<think>里写理由，<answer>里写一条指令。",
    "严格使用如下格式：\n<think>理由</think>\n<answer>do(...)</answer>",
)  # fmt: skip
_FORMS_EN = (
    "Write:\n<think>{{thought}}</think>\n<answer>{{action}}</answer>",
    "Think first, then answer, as in <think>…</think><answer>…</answer>.",
    "A reply has two parts: <think> with the reason and <answer> with one command.",
    "Keep strictly to this form:\n<think>reason</think>\n<answer>do(...)</answer>",
)  # fmt: skip
_ACTIONS = (
    'do(action="Launch", app="{a}")', 'do(action="Tap", element=[x,y])',
    'do(action="Tap", element=[{k},{k}])', 'do(action="Tap", element=[x,y], message="…")',
    'do(action="Type", text="{t}")', 'do(action="Swipe", start=[x1,y1], end=[x2,y2])',
    'do(action="Swipe", start=[{k},{k}], end=[{k},{k}])', 'do(action="Long Press", element=[x,y])',
    'do(action="Double Tap", element=[x,y])', 'do(action="Back")', 'do(action="Home")',
    'do(action="Wait", duration="{d} seconds")', 'do(action="Take_over", message="…")',
    'do(action="Note", message="True")', 'do(action="Interact")', 'finish(message="…")',
    'finish(message="{t}")',
)  # fmt: skip
_HEADS_ZH = ("可用操作", "规则", "必须遵循的规则", "操作说明", "注意事项", "示例", "补充要求", "常见问题")
_HEADS_EN = (
    "Available actions",
    "Rules",
    "Rules to follow",
    "Commands",
    "Notes",
    "Examples",
    "Extras",
    "Hints",
)
FRAMES: dict[Language, tuple[str, ...]] = {"zh": _FRAMES_ZH, "en": _FRAMES_EN}
ROLES: dict[Language, tuple[str, ...]] = {"zh": _ROLES_ZH, "en": _ROLES_EN}
FORMS: dict[Language, tuple[str, ...]] = {"zh": _FORMS_ZH, "en": _FORMS_EN}
HEADS: dict[Language, tuple[str, ...]] = {"zh": _HEADS_ZH, "en": _HEADS_EN}
_DAYS_ZH = "一二三四五六日"
_DAYS_EN = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes in one language, from the frames of training or from those that are held out."""

    rng: random.Random
    language: Language
    held_out: bool = False

    def one(self, frames: tuple[str, ...]) -> str:
        """One of the frames, of those of training or of those held out."""
        last = HELD_OUT_EVERY - 1
        kept = [f for i, f in enumerate(frames) if (i % HELD_OUT_EVERY == last) == self.held_out]
        return self.rng.choice(kept)

    def fill(self, frame: str) -> str:
        rng, zh = self.rng, self.language == "zh"
        slots: dict[str, Callable[[], str]] = {
            "{n}": lambda: rng.choice(_NOUNS_ZH if zh else _NOUNS_EN),
            "{v}": lambda: rng.choice(_VERBS_ZH if zh else _VERBS_EN),
            "{m}": lambda: rng.choice(_MANNERS_ZH if zh else _MANNERS_EN),
            "{a}": lambda: rng.choice(words.ALL).text(self.language),
            "{t}": lambda: rng.choice(words.TYPED).text(self.language),
            "{k}": lambda: str(rng.randrange(1000)),
            "{d}": lambda: str(rng.randrange(1, 10)),
        }
        for slot, make in slots.items():
            while slot in frame:
                frame = frame.replace(slot, make(), 1)
        return frame.replace("{{", "{").replace("}}", "}")

    def sentence(self) -> str:
        if not self.held_out and self.rng.random() < 0.12:
            return self.gibberish()
        text = self.fill(self.one(FRAMES[self.language]))
        return text[0].upper() + text[1:]

    def gibberish(self) -> str:
        """Words that nobody has read: what is noise must not need to be known."""
        rng = self.rng
        if self.language == "zh" or rng.random() < 0.1:
            return "".join(chr(rng.randrange(0x4E00, 0x9FA0)) for _ in range(rng.randrange(4, 24))) + "。"
        made = (
            "".join(rng.choice("bcdfghlmnprstvw") + rng.choice("aeiou") for _ in range(rng.randrange(1, 4)))
            for _ in range(rng.randrange(3, 12))
        )
        return " ".join(made) + rng.choice((".", ";", "!"))

    def date(self) -> str:
        rng = self.rng
        year, month, day = rng.randrange(2023, 2031), rng.randrange(1, 13), rng.randrange(1, 29)
        if self.language == "zh":
            week = rng.choice(_DAYS_ZH)
            return rng.choice(
                (
                    f"今天的日期是: {year}年{month:02d}月{day:02d}日 星期{week}",
                    f"当前时间：{year}-{month}-{day}",
                    f"日期 {year}/{month}/{day}",
                )
            )
        week = rng.choice(_DAYS_EN)
        return rng.choice(
            (
                f"The current date: {year}-{month:02d}-{day:02d}, {week}",
                f"Today is {week}, {day} {_MONTHS[month - 1]} {year}.",
                f"Date: {year}/{month}/{day}",
            )
        )

    def role(self) -> str:
        return self.one(ROLES[self.language])

    def form(self) -> str:
        return self.fill(self.one(FORMS[self.language]))

    def head(self) -> str:
        title = self.one(HEADS[self.language])
        return self.rng.choice(("# {}", "## {}", "{}：", "{}:", "**{}**", "【{}】", "{}")).format(title)

    def catalogue(self) -> str:
        """Some actions and what they are said to do."""
        rng = self.rng
        chosen = rng.sample(_ACTIONS, rng.randrange(2, len(_ACTIONS)))
        bullet = rng.choice(("- ", "* ", "", "  - "))
        lines = []
        for action in chosen:
            lines.append(bullet + self.fill(action))
            if rng.random() < 0.6:
                lines.append("    " * (rng.random() < 0.5) + self.sentence())
        return "\n".join(lines)

    def rules(self) -> str:
        count, style = self.rng.randrange(2, 12), self.rng.choice(("{}. ", "{}) ", "{}、", "- ", "（{}）"))
        return "\n".join(style.format(number + 1) + self.sentence() for number in range(count))

    def example(self) -> str:
        """A step that somebody else once took."""
        rng = self.rng
        action = self.fill(rng.choice(_ACTIONS))
        thought = self.sentence()
        said = self.fill(
            rng.choice(
                ("打开{a}，点击{a}", "在{a}里找{a}")
                if self.language == "zh"
                else ("Open {a}, tap {a}", "Find {a} in {a}")
            )
        )
        begin = rng.choice(
            ("任务：", "用户：", "例：") if self.language == "zh" else ("Task: ", "User: ", "e.g. ")
        )
        if rng.random() < 0.5:
            return f"{begin}{said}\n<think>{thought}</think>\n<answer>{action}</answer>"
        return f"{begin}{said}\n{action}"

    def paragraph(self) -> str:
        return ("" if self.language == "zh" else " ").join(
            self.sentence() for _ in range(self.rng.randrange(1, 5))
        )

    def facts(self) -> str:
        """What a client says about the screen, as JSON."""
        rng = self.rng
        facts: dict[str, object] = {"current_app": rng.choice(words.APPS).text(self.language)}
        if rng.random() < 0.15:
            facts["current_app"] = rng.choice(("System Home", "com.android.launcher", "Unknown"))
        if rng.random() < 0.2:
            facts["size"] = [rng.randrange(700, 1600), rng.randrange(1500, 3300)]
        if rng.random() < 0.15:
            facts["focus"] = [rng.randrange(1000), rng.randrange(1000)]
        if rng.random() < 0.1:
            facts["note"] = self.sentence()
        indent = 2 if rng.random() < 0.1 else None
        return json.dumps(facts, ensure_ascii=rng.random() < 0.2, indent=indent)


def system_prompt(
    rng: random.Random, *, characters: int, language: Language | None = None, held_out: bool = False
) -> str:
    """A system prompt of about so many characters."""
    languages: tuple[Language, ...] = ("zh", "en")
    writer = Writer(rng, rng.choice(languages) if language is None else language, held_out)
    parts = [part() for part in (writer.date, writer.role, writer.form) if rng.random() < 0.7]
    rng.shuffle(parts)
    length = sum(map(len, parts))
    sections = (writer.rules, writer.rules, writer.catalogue, writer.example, writer.paragraph)
    while length < characters:
        section = rng.choice(sections)()
        if rng.random() < 0.3:
            section = writer.head() + "\n" + section
        section = section[: max(60, characters - length)]
        parts.append(section)
        length += len(section) + 1
    return rng.choice(("\n", "\n", "\n\n")).join(parts) or writer.role()
