"""The words of the demo: short texts in ten languages, a table, a program and a web page. Written for Sightline."""

# ruff: noqa: E501 -- texts keep the lines they have in the files

from __future__ import annotations

from typing import Final

TEXTS: Final[dict[str, str]] = {
    "texts/bread.md": """# Sourdough for beginners

Feed the starter in the evening: equal weights of flour and water. In the morning it should float.
Mix 500 g of flour with 350 g of water and let it stand for half an hour, then add 100 g of starter and 10 g of salt.

## Folding
Stretch and fold the dough four times, once every thirty minutes. It becomes smooth and strong without kneading.

## Proving and baking
Shape the loaf, put it into a floured basket and leave it in the fridge overnight. The cold dough is easy to score.
Bake it at 240 degrees, covered for the first twenty minutes so that the steam keeps the crust soft, then uncovered
until it is dark brown. Wait an hour before you cut it.
""",
    "texts/bees.txt": """A year with the bees

In winter the colony forms a tight ball around the queen and shivers to keep her warm. The keeper does nothing but
listen. In spring, when the willow flowers, the first foragers bring home yellow pollen. By May the hive may swarm:
half of the bees leave with the old queen and hang in a tree like a beard until scouts have found a hollow trunk.
Honey is taken in July. A strong hive gives about twenty kilograms and keeps as much for itself.
""",
    "texts/rosen.md": """# Rosen im Winter

Rosen brauchen im Herbst keinen Dünger mehr, sonst treiben sie zu spät aus und erfrieren. Häufeln Sie die Veredelungsstelle
mit lockerer Erde an, etwa eine Handbreit hoch, und decken Sie die Triebe mit Tannenreisig ab.

Geschnitten wird erst im Frühjahr, wenn die Forsythien blühen. Schneiden Sie schräg über einem Auge, das nach außen zeigt.
Kübelrosen stellt man an die Hauswand und wickelt den Topf in Jute.
""",
    "texts/fromage.txt": """Le fromage au marché

Le samedi matin, la fromagère ouvre son étal avant l'aube. Elle conseille un comté de dix-huit mois pour l'apéritif, un
brie bien coulant pour le plateau et un bleu d'Auvergne pour la sauce. Il faut sortir les fromages du réfrigérateur une
heure avant le repas et les couper de façon que chacun ait un peu de cœur et un peu de croûte.
""",
    "texts/tortilla.txt": """Tortilla de patatas

Se pelan cuatro patatas y una cebolla, se cortan en láminas finas y se fríen despacio en abundante aceite de oliva. Se baten
seis huevos con sal, se mezclan con las patatas escurridas y se dejan reposar diez minutos. Se cuaja la mezcla en una sartén
pequeña, se le da la vuelta con un plato y se termina por el otro lado. Por dentro debe quedar jugosa.
""",
    "texts/tea.txt": """绿茶的冲泡

泡绿茶不要用沸水。水烧开以后放凉到八十度左右，再慢慢倒进玻璃杯里。每杯放三克茶叶，先倒三分之一的水，轻轻摇动，让茶叶吸水展开，
闻到清香以后再把水加满。两三分钟就可以喝了。杯里剩下三分之一的时候续水，一般可以冲泡三次。龙井和碧螺春都适合这样泡。
""",
    "texts/onsen.txt": """温泉の入り方

湯船に入る前に、まず洗い場で体をよく洗います。タオルは湯の中に入れず、頭の上にのせるか、岩の上に置きます。
熱い湯には足からゆっくり入り、十分ほどで一度上がって休みましょう。露天風呂では、雪の降る夜に山を眺めながら入るのが一番の楽しみです。
上がった後は冷たい牛乳を飲むのが昔からの習慣です。
""",
    "texts/kimchi.txt": """김치 담그는 법

배추를 반으로 갈라 소금물에 여덟 시간 절인 뒤 깨끗이 씻어 물기를 뺍니다. 무채에 고춧가루, 마늘, 생강, 젓갈, 찹쌀풀을 넣고 버무려
양념을 만듭니다. 배춧잎 사이사이에 양념을 고루 바르고 항아리에 차곡차곡 담습니다. 실온에서 하루 익힌 다음 서늘한 곳에 두고 먹습니다.
""",
    "texts/dates.txt": """موسم التمر

تبدأ أشجار النخيل في الإثمار بعد أربع سنوات من زراعتها. في نهاية الصيف يصعد المزارع إلى أعلى النخلة بالحبل ويقطع العذوق الناضجة
بعناية. يُفرش التمر تحت الشمس أيامًا قليلة ثم يُحفظ في صناديق من الخشب. يُقدَّم التمر مع القهوة العربية للضيوف في كل بيت.
""",
    "texts/monsoon.txt": """बारिश का मौसम

जून के महीने में जब पहली बारिश होती है, तब सूखी मिट्टी से सोंधी खुशबू उठती है। किसान धान की रोपाई के लिए खेत तैयार करते हैं।
बच्चे काग़ज़ की नाव बनाकर पानी में चलाते हैं और घरों में गरम पकौड़े तले जाते हैं। नदियाँ भर जाती हैं और मोर नाचने लगते हैं।
""",
    "texts/baikal.txt": """Зима на Байкале

В январе озеро замерзает, и лёд становится таким прозрачным, что видно камни на дне. По льду прокладывают дорогу к острову
Ольхон. Рыбаки ставят палатки, сверлят лунки и ловят омуля. Ночью лёд трещит, как далёкий гром: от мороза по нему бегут
длинные трещины. В апреле он снова темнеет, и ездить по нему уже нельзя.
""",
    "data/stations.csv": """station,country,opened,platforms,passengers per day
Gare du Nord,France,1864,44,700000
Shinjuku,Japan,1885,36,3500000
Grand Central,United States,1913,44,750000
Leipzig Hbf,Germany,1915,19,120000
Chhatrapati Shivaji,India,1887,18,3000000
Flinders Street,Australia,1854,13,77000
""",
    "data/euclid.py": '''"""Greatest common divisor and least common multiple."""


def greatest_common_divisor(a: int, b: int) -> int:
    """Euclid: replace the larger number by the remainder until nothing remains."""
    while b:
        a, b = b, a % b
    return abs(a)


def least_common_multiple(a: int, b: int) -> int:
    """The smallest positive number that both divide."""
    return abs(a * b) // greatest_common_divisor(a, b) if a and b else 0
''',
    "data/library.html": """<!doctype html>
<html lang="en"><head><title>Opening hours of the town library</title></head>
<body><h1>Town library</h1><p>The reading room is open from Tuesday to Saturday, nine to six. Books can be renewed twice,
by telephone or at the desk. Children under ten borrow picture books for free.</p></body></html>
""",
}

TEXT_LABELS: Final[dict[str, str]] = {
    "texts/bread.md": "how to bake sourdough bread, English",
    "texts/bees.txt": "a year with the bees, English",
    "texts/rosen.md": "roses in winter, German",
    "texts/fromage.txt": "cheese at the market, French",
    "texts/tortilla.txt": "potato omelette, Spanish",
    "texts/tea.txt": "how to brew green tea, Chinese",
    "texts/onsen.txt": "manners at a hot spring, Japanese",
    "texts/kimchi.txt": "how to make kimchi, Korean",
    "texts/dates.txt": "the season of dates, Arabic",
    "texts/monsoon.txt": "the rainy season, Hindi",
    "texts/baikal.txt": "winter at lake Baikal, Russian",
    "data/stations.csv": "a table of railway stations",
    "data/euclid.py": "a program: greatest common divisor",
    "data/library.html": "a web page: hours of the library",
}
"""What each text is, for people who do not read the language."""

PAGES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "scans/scan_01.png": (
        "HARTMANN HARDWARE",
        (
            "14 Mill Lane, Ashford",
            "Receipt no. 20731",
            "",
            "1  claw hammer              18.90",
            "2  box of nails 60 mm        7.80",
            "1  folding ruler             5.50",
            "1  wood glue 500 g           6.20",
            "4  sandpaper P120            3.60",
            "",
            "TOTAL                       42.00",
            "paid in cash                50.00",
            "change                       8.00",
            "",
            "Thank you, come again!",
        ),
    ),
    "scans/scan_02.png": (
        "Ristorante Bellavista",
        (
            "Starters",
            "  Tomato and basil bruschetta     6",
            "  Carpaccio of beetroot           8",
            "Pasta",
            "  Spaghetti with clams           16",
            "  Ravioli, spinach and ricotta   14",
            "Pizza",
            "  Margherita                     11",
            "  Four seasons                   14",
            "Dessert",
            "  Tiramisu                        7",
            "  Lemon sorbet                    5",
        ),
    ),
    "scans/scan_03.png": (
        "DEPARTURES",
        (
            "Night train to Vienna",
            "",
            "Hamburg          19:42   track 8",
            "Hannover         21:10   track 3",
            "Nuremberg        01:35   track 6",
            "Passau           03:50   track 1",
            "Vienna           07:04   track 5",
            "",
            "Sleeping car 21 to 24, bicycles in car 25.",
            "Breakfast is served from six.",
        ),
    ),
    "scans/scan_04.png": (
        "Minutes of the garden club",
        (
            "Present: Ada, Bruno, Chiara, Dmitri, Emma",
            "",
            "1. The greenhouse roof leaks. Bruno asks",
            "   for three offers until the fifteenth.",
            "2. Tomato seedlings are ready in April.",
            "3. The summer party is on the second",
            "   Saturday of July, with live music.",
            "4. New watering plan: see the notice board.",
            "",
            "Next meeting: first Monday in May.",
        ),
    ),
    "scans/scan_05.png": (
        "BOARDING PASS",
        (
            "Passenger    LINDQVIST / MAJA",
            "Flight       SK 4035",
            "From         Oslo (OSL)",
            "To           Lisbon (LIS)",
            "Gate         B 17",
            "Seat         22 A  window",
            "Boarding     06:25",
        ),
    ),
}
"""Rendered pages without a text layer: file -> heading and lines."""

MANUAL: Final[tuple[tuple[str, str], ...]] = (
    (
        "Aurora espresso machine",
        "Thank you for choosing the Aurora. This manual explains how to set up the machine, make coffee, froth milk, clean "
        "and descale it, and what to do when something does not work. Keep it near the machine.",
    ),
    (
        "First use",
        "Remove the packing and place the machine on a flat surface. Fill the water tank to the upper mark and put it back "
        "until it clicks. Switch the machine on and wait until the lamp stops blinking. Let two cups of water run through "
        "before you make the first espresso.",
    ),
    (
        "Frothing milk",
        "Fill a steel jug to one third with cold milk. Open the steam valve for a moment to let the water out. Hold the tip "
        "of the wand just under the surface until the milk doubles in volume, then lower it and heat to sixty-five degrees. "
        "Wipe the wand with a damp cloth at once.",
    ),
    (
        "Descaling",
        "When the orange lamp lights up, lime has built up in the boiler. Dissolve thirty grams of citric acid in one litre "
        "of lukewarm water, pour it into the tank and start the descaling programme with the cup and steam buttons together. "
        "It takes twenty-five minutes. Rinse with two full tanks of fresh water. Never use vinegar: it attacks the seals.",
    ),
    (
        "Troubleshooting",
        "No coffee comes out: the coffee is ground too finely or the filter is blocked. The pump is loud: the tank is empty or "
        "not seated well. Coffee is sour: the water is not hot enough, warm the cups first. Water under the machine: the drip "
        "tray is full or the seal of the brew head is worn.",
    ),
    (
        "Warranty and service",
        "The warranty lasts twenty-four months from the day of purchase. It covers faults in material and workmanship, and does "
        "not cover lime, seals and damage by frost. Send the machine with the receipt to the service centre; repairs take about "
        "ten working days.",
    ),
)
"""The pages of the PDF: heading and text."""
