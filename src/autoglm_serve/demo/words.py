"""The words of the synthetic world: what can stand on a screen, in Chinese and in English.

Owns the closed vocabulary only. Knows nothing of layout, drawing, instructions or models. Read by `screens`,
`tasks`, `talk` and `speech`, and by the training code, which builds its tokenizer from the same words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Language: TypeAlias = Literal["zh", "en"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One meaning in both languages."""

    zh: str
    en: str

    def text(self, language: Language) -> str:
        return self.zh if language == "zh" else self.en


def _words(pairs: str) -> tuple[Word, ...]:
    split = (line.split("|") for line in pairs.split())
    return tuple(Word(zh=zh, en=en.replace("_", " ")) for zh, en in split)


APPS = _words("""
    微信|WeChat 支付宝|Alipay 淘宝|Taobao 京东|JD 抖音|Douyin 美团|Meituan 高德地图|Amap 百度|Baidu
    哔哩哔哩|Bilibili 微博|Weibo 知乎|Zhihu 小红书|Rednote 拼多多|Pinduoduo 滴滴出行|DiDi 网易云音乐|NetEase
    携程|Trip 相机|Camera 相册|Gallery 日历|Calendar 时钟|Clock 天气|Weather 计算器|Calculator 备忘录|Notes
    电话|Phone 短信|Messages 联系人|Contacts 邮件|Mail 浏览器|Browser 地图|Maps 音乐|Music 视频|Video
    设置|Settings 应用商店|Store 文件|Files 录音机|Recorder 指南针|Compass 手电筒|Torch 钱包|Wallet
    健康|Health 阅读|Books 游戏|Games 翻译|Translate 股票|Stocks 新闻|News 主题|Themes 词典|Dictionary
""")

SETTINGS = _words("""
    蓝牙|Bluetooth 飞行模式|Airplane_mode 移动数据|Mobile_data 热点|Hotspot 定位|Location 深色模式|Dark_mode
    护眼模式|Eye_comfort 勿扰模式|Do_not_disturb 自动旋转|Auto_rotate 省电模式|Battery_saver 震动|Vibration
    铃声|Ringtone 通知|Notifications 显示|Display 声音|Sound 壁纸|Wallpaper 存储|Storage 电池|Battery
    安全|Security 隐私|Privacy 语言|Language 键盘|Keyboard 账号|Account 备份|Backup 更新|Update 关于手机|About
    指纹|Fingerprint 密码|Password 字体大小|Font_size 屏幕亮度|Brightness 网络|Network 共享|Sharing
""")

BUTTONS = _words("""
    确定|OK 取消|Cancel 删除|Delete 保存|Save 发送|Send 登录|Log_in 注册|Sign_up 下一步|Next 完成|Done
    返回首页|Go_home 提交|Submit 购买|Buy 付款|Pay 预订|Book 分享|Share 收藏|Favorite
    关注|Follow 下载|Download
    安装|Install 打开|Open 同意|Agree 拒绝|Decline 允许|Allow 重试|Retry 编辑|Edit 添加|Add 播放|Play
    暂停|Pause 跳过|Skip 领取|Claim
""")

TABS = _words("""
    首页|Home_page 发现|Discover 消息|Inbox 购物车|Cart 我的|Me 推荐|For_you 分类|Categories 订单|Orders
    动态|Moments 直播|Live 附近|Nearby 会员|Member
""")

ITEMS = _words("""
    牛奶|Milk 咖啡|Coffee 奶茶|Milk_tea 苹果|Apples 香蕉|Bananas 面包|Bread 米饭|Rice 面条|Noodles 汉堡|Burger
    披萨|Pizza 火锅|Hot_pot 鞋子|Shoes 雨伞|Umbrella 耳机|Headphones 充电器|Charger
    手机壳|Phone_case 背包|Backpack
    书桌|Desk 台灯|Lamp 毛巾|Towel 牙刷|Toothbrush 酒店|Hotel 机票|Flights
    火车票|Train_tickets 电影票|Movie_tickets
    张伟|Tom 王芳|Anna 李娜|Lily 刘洋|Jack 陈静|Emma 妈妈|Mom 爸爸|Dad 老板|Boss
""")

TYPED = _words("""
    北京|Beijing 上海|Shanghai 广州|Guangzhou 深圳|Shenzhen 杭州|Hangzhou 成都|Chengdu
    你好|hello 谢谢|thank_you
    晚安|good_night 生日快乐|happy_birthday 我到了|I_am_here 马上到|on_my_way 明天见|see_you_tomorrow
    附近的餐厅|restaurants_nearby 天气预报|weather_forecast 最新电影|new_movies 蓝牙耳机|wireless_headphones
    跑步鞋|running_shoes 开会|meeting 早上好|good_morning 无糖可乐|diet_coke 电动牙刷|electric_toothbrush
""")

COLOURS = _words("红色|red 绿色|green 蓝色|blue 橙色|orange 紫色|purple 灰色|gray")

FIELDS = _words("用户名|User_name 手机号|Phone_number 验证码|Code 地址|Address 备注|Remark 姓名|Full_name")

SEARCH = Word(zh="搜索", en="Search")

DIALOG_LINES = _words("""
    确定要继续吗？|Do_you_want_to_continue? 此操作无法撤销|This_cannot_be_undone
    需要访问位置信息|Needs_your_location
    网络连接失败|No_connection 发现新版本|A_new_version_is_here 是否保存修改？|Keep_your_changes?
""")

LOADING = Word(zh="加载...", en="Loading...")
LOCKED = Word(zh="密码？", en="Password?")
DONE_LINE = Word(zh="完成！", en="All done!")
"""What stands on pages that have nothing to touch."""

BUTTONS_BY_EN = {word.en: word for word in BUTTONS}

CLOCK = Word(zh="时间", en="time")
"""What the status bar shows; never written as a label."""

ALL = (*APPS, *SETTINGS, *BUTTONS, *TABS, *ITEMS, *FIELDS, SEARCH)
"""Every word that can be a label on a screen; its index is the label's number in training."""
