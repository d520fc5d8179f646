"""The questions of the demo, each with the file that answers it. Declared here, checked after each run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sightline.cli.demo.files import FILM_NAME, SLIDES_NAME
from sightline.types import Hit


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One question and its right answer.

    Attributes:
        kind: what sort of question it is, for people.
        words: the text of the query, or "".
        image, video: a file in the folder of query pictures, or "".
        where: a filter, or "".
        file: the file that should come first, below the folder of files; any of them where there are several.
        pages: of a PDF, those that answer; () for any.
        within: of a video, seconds that the moment must share at least half of; None for any.
        itself: the image is a file of the index, and copies of it are right too.
    """

    kind: str
    words: str = ""
    image: str = ""
    video: str = ""
    where: str = ""
    file: tuple[str, ...] = ()
    pages: tuple[int, ...] = ()
    within: tuple[float, float] | None = None
    itself: bool = False

    def answered_by(self, hit: Hit, name: str) -> bool:
        """Whether a hit is the right answer; ``name`` is its path below the folder of files."""
        if name not in self.file:
            return False
        if self.pages and hit.page not in self.pages:
            return False
        if self.within is not None and (hit.start_s is None or hit.end_s is None):
            return False
        if self.within is not None and hit.start_s is not None and hit.end_s is not None:
            shared = min(self.within[1], hit.end_s) - max(self.within[0], hit.start_s)
            return shared >= 0.5 * min(hit.end_s - hit.start_s, self.within[1] - self.within[0])
        return True


FILM: Final = (FILM_NAME,)

QUERIES: Final = (
    Query(kind="words → text", words="how to bake sourdough bread", file=("texts/bread.md",)),
    Query(kind="words → text", words="where do the bees go in spring", file=("texts/bees.txt",)),
    Query(kind="words → code", words="greatest common divisor of two numbers", file=("data/euclid.py",)),
    Query(kind="words → table", words="railway stations with passengers per day", file=("data/stations.csv",)),
    Query(
        kind="words → PDF page",
        words="removing lime with citric acid",
        file=("papers/manual.pdf",),
        pages=(4,),
    ),
    Query(kind="words → PDF page", words="how do I froth milk", file=("papers/manual.pdf",), pages=(3,)),
    Query(
        kind="words → scanned page",
        words="receipt from a hardware store: hammer and nails",
        file=("scans/scan_01.png",),
    ),
    Query(kind="words → scanned page", words="night train to Vienna", file=("scans/scan_03.png",)),
    Query(kind="words → photograph", words="an astronaut", where="kind=image", file=("photos/IMG_0101.png",)),
    Query(kind="words → photograph", words="a cup of coffee", where="kind=image", file=("photos/IMG_0102.png",)),
    Query(kind="words → photograph", words="a cat", where="kind=image", file=("photos/IMG_0103.png",)),
    Query(kind="words → chart", words="bar chart of umbrellas sold", file=("charts/chart_1.png",)),
    Query(kind="words → chart", words="a pie chart of the household budget", file=("charts/chart_3.png",)),
    Query(kind="words → scene", words="three red circles", where="kind=image", file=("scenes/scene_01.png",)),
    Query(kind="words → scene", words="two yellow stars", where="kind=image", file=("scenes/scene_04.png",)),
    Query(
        kind="words → moment",
        words="a red ball moves to the right",
        where="kind=moment",
        file=FILM,
        within=(0, 8),
    ),
    Query(kind="words → moment", words="a green triangle", where="kind=moment", file=FILM, within=(24, 32)),
    Query(kind="words → moment", words="the lighthouse of Skagen", where="kind=moment", file=FILM, within=(16, 24)),
    Query(kind="image → images", image="cat_cropped.png", where="kind=image", file=("photos/IMG_0103.png",)),
    Query(kind="image → images", image="motorcycle_other_side.png", file=("photos/IMG_0110.png",)),
    Query(kind="image → images", image="stars_elsewhere.png", where="kind=image", file=("scenes/scene_04.png",)),
    Query(
        kind="image → moment",
        image="stars_elsewhere.png",
        where="kind=moment",
        file=FILM,
        within=(32, 40),
    ),
    Query(
        kind="image → moment",
        image="cat_cropped.png",
        where="kind=moment",
        file=(SLIDES_NAME,),
        within=(16, 24),
    ),
    Query(
        kind="image and words",
        image="three_red_circles.png",
        words="the same, but in blue",
        where="kind=image",
        file=("scenes/scene_02.png",),
    ),
    Query(kind="video → moment", video="falling_square.mp4", where="kind=moment", file=FILM, within=(8, 16)),
    Query(kind="German", words="Rosen im Winter schützen", file=("texts/rosen.md",)),
    Query(kind="French", words="quel fromage pour le plateau ?", file=("texts/fromage.txt",)),
    Query(kind="Chinese", words="绿茶怎么泡", file=("texts/tea.txt",)),
    Query(kind="Japanese", words="露天風呂", file=("texts/onsen.txt",)),
    Query(kind="Korean", words="배추 김치", file=("texts/kimchi.txt",)),
    Query(kind="Arabic", words="التمر والنخيل", file=("texts/dates.txt",)),
    Query(kind="Hindi", words="पहली बारिश", file=("texts/monsoon.txt",)),
    Query(kind="Russian", words="лёд на озере Байкал", file=("texts/baikal.txt",)),
    Query(kind="English → Spanish", words="potato omelette with eggs and onion", file=("texts/tortilla.txt",)),
    Query(
        kind="filter by folder",
        words="pizza, pasta and dessert",
        where="path={scans}",
        file=("scans/scan_02.png",),
    ),
)
"""``{name}`` in a filter is the folder of that name among the demo's files, quoted."""
