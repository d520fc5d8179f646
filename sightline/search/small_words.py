"""Words that say little: articles, pronouns, prepositions, questions. They stand in any text of their language.

An index of a few dozen files holds too little of a language for its counts to tell. Words that mean something in
another language of the list ("die", "war", "pour") are left out: what is rare near a query may always count.
"""

from __future__ import annotations

from typing import Final

_BY_LANGUAGE: Final = {
    "English": """a an the of to in on at by for from with without into onto over under about as is are was were
        be been being am do does did done has have had having can could may might must shall should will
        would i me my mine you your yours he him his she her hers it its we us our ours they them their
        theirs this that these those there here who whom whose which what when where why how and or but
        nor not no if than then so too very just some any each every such only own same between through
        during before after again""",
    "German": """der das dem des ein eine einer eines einem einen und oder aber nicht kein keine mit von zu zum
        zur im am auf aus bei nach vor seit für über unter durch gegen ohne um ist sind waren wird
        werden wurde hat haben hatte kann können ich du er sie es wir ihr mein dein sein ihre wie wo was
        wer wann warum welche welcher welches sich auch noch nur schon sehr dass weil wenn als""",
    "French": """le la les un une des du de au aux et ou mais ni ne pas plus que qui quoi quel quelle quels
        quelles dont où quand comment pourquoi avec sans dans par sous chez entre vers est sont était
        être avoir ce cet cette ces mon ma mes ton ta tes sa ses notre nos votre vos leur leurs je tu il
        elle nous vous ils elles se y très""",
    "Spanish": """el los las una unos unas del al y e o u pero ni no con sin por para según sobre entre desde
        hasta hacia es fue ser está están hay ha han que quien quién cual cuál cómo cuándo dónde qué
        porque yo tú él ella nosotros ellos ellas mi tu su sus nuestro este esta estos estas ese esa eso
        lo se muy más""",
    "Italian": """il lo gli i uno nel nella nei nelle dal dalla sul sulla ed ma non che chi cui quale come dove
        quando perché è sono era essere ho hai abbiamo questo questa questi queste quello quella mio suo
        loro io noi voi essi anche più molto di da""",
    "Portuguese": """os um uma uns umas do da dos das em no na nos nas ao à com sem mas não são foi ser está há como
        onde quem qual quando seu sua seus suas meu minha ele eles ela elas isso isto este esta muito
        mais""",
    "Dutch": """het een van voor met zonder naar bij uit aan op om tot door tegen tussen zijn waren wordt worden
        heeft hebben niet geen maar ook dan dat dit deze ik jij hij zij wij jullie mijn jouw hoe waar
        wanneer waarom welke""",
    "Swedish": """och eller men inte det ett som för att med utan till från av vid är var hur vad vem varför jag
        du han hon vi ni deras denna detta""",
    "Polish": """i w z na do od dla po przy przez bez nie jest są był była że który która które jak gdzie kiedy
        dlaczego czy się ten ta to""",
    "Turkish": "ve veya bir bu şu o için ile gibi ne nasıl nerede kim neden değil mi çok daha",
    "Indonesian": """yang dan atau di ke dari untuk dengan pada adalah ini itu tidak bagaimana apa siapa mana kapan
        mengapa""",
    "Vietnamese": "và của là các những cho với trong có không được này đó như thế nào",
    "Russian": """и в во на с со к ко о об от до из у за по для без над под при через не ни но или что кто какой
        какая какие как где когда почему это этот эта эти он она оно они мы вы я ты его её их мой твой
        свой же бы ли так""",
    "Ukrainian": "і й та у в на з до від для без не що хто який яка які як де коли чому це цей ця він вона вони",
    "Greek": """ο η το οι τα του της των τον την και ή να με σε από για χωρίς δεν είναι ήταν που πως τι ποιος
        πού πότε γιατί""",
    "Arabic": "في من على إلى عن مع أو ثم لا ما هل كيف أين متى لماذا هذا هذه ذلك التي الذي هو هي",
    "Persian": "در از به با برای که را این آن است بود چه چگونه کجا چرا و یا",
    "Hindi": "का की के में से पर को और या है हैं था थी थे यह वह क्या कैसे कहाँ कब क्यों नहीं एक",
}
"""By language, in small letters."""

SMALL_WORDS: Final = frozenset(word for words in _BY_LANGUAGE.values() for word in words.split())
