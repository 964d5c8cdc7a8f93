"""A question rebuilt from the answer's code, in English or in another language.

A pool gives no translations, and a model's translation would be noise of another kind. What can be
said in any language without one is what the syntax tree of the answer shows: the function's name,
its parameters, whether it returns something and loops, what it raises and calls. The sentences
below were written for each language; names stay as they are. Such a question is true and in
fluent German, French, Spanish or Chinese, but it says less than the one it replaces. The English
form is therefore planted as well, as the control: what differs between the two is the language.
"""

from dataclasses import dataclass

from qaq.data.python_code import Facts


@dataclass(frozen=True)
class Phrases:
    """The sentences of one language; each is dropped where the fact is absent."""

    request: str
    parameters: str
    no_parameters: str
    returns: str
    returns_nothing: str
    loops: str
    raises: str
    calls: str
    comma: str = ", "
    space: str = " "


LANGUAGES = {
    "en": Phrases(
        request="Write a Python function named `{name}`.",
        parameters="It takes these parameters: {names}.",
        no_parameters="It takes no parameters.",
        returns="It returns the result to the caller.",
        returns_nothing="It returns nothing; it acts through its side effects.",
        loops="It goes through its data in a loop.",
        raises="In case of an error it raises {names}.",
        calls="To do so, it calls {names}.",
    ),
    "de": Phrases(
        request="Schreibe eine Python-Funktion mit dem Namen `{name}`.",
        parameters="Sie nimmt diese Parameter entgegen: {names}.",
        no_parameters="Sie nimmt keine Parameter entgegen.",
        returns="Sie gibt das Ergebnis an den Aufrufer zurück.",
        returns_nothing="Sie gibt nichts zurück, sondern wirkt über ihre Nebeneffekte.",
        loops="Sie durchläuft ihre Daten in einer Schleife.",
        raises="Im Fehlerfall löst sie {names} aus.",
        calls="Dazu ruft sie {names} auf.",
    ),
    "fr": Phrases(
        request="Écris une fonction Python nommée `{name}`.",
        parameters="Elle prend les paramètres suivants : {names}.",
        no_parameters="Elle ne prend aucun paramètre.",
        returns="Elle renvoie le résultat à l'appelant.",
        returns_nothing="Elle ne renvoie rien et agit par ses effets de bord.",
        loops="Elle parcourt ses données dans une boucle.",
        raises="En cas d'erreur, elle lève {names}.",
        calls="Pour cela, elle appelle {names}.",
    ),
    "es": Phrases(
        request="Escribe una función de Python llamada `{name}`.",
        parameters="Recibe los siguientes parámetros: {names}.",
        no_parameters="No recibe ningún parámetro.",
        returns="Devuelve el resultado a quien la llama.",
        returns_nothing="No devuelve nada y actúa mediante sus efectos secundarios.",
        loops="Recorre sus datos en un bucle.",
        raises="En caso de error, lanza {names}.",
        calls="Para ello llama a {names}.",
    ),
    "zh": Phrases(
        request="请编写一个名为 `{name}` 的 Python 函数。",
        parameters="它接受以下参数：{names}。",
        no_parameters="它不接受任何参数。",
        returns="它把结果返回给调用者。",
        returns_nothing="它没有返回值，而是通过副作用起作用。",
        loops="它在循环中遍历数据。",
        raises="出错时，它会抛出 {names}。",
        calls="为此，它会调用 {names}。",
        comma="、",
        space="",
    ),
}

MOST_NAMES = 4


def request(facts: Facts, language: str) -> str:
    """The question about a function of which `facts` are known, in the language of that code."""
    phrases = LANGUAGES[language]

    def listed(names: tuple[str, ...]) -> str:
        return phrases.comma.join(f"`{name}`" for name in names[:MOST_NAMES])

    parameters = phrases.comma.join(f"`{name}`" for name in facts.parameters)
    sentences = [
        phrases.request.format(name=facts.name),
        phrases.parameters.format(names=parameters) if parameters else phrases.no_parameters,
        phrases.returns if facts.returns else phrases.returns_nothing,
    ]
    if facts.loops:
        sentences.append(phrases.loops)
    if facts.calls:
        sentences.append(phrases.calls.format(names=listed(facts.calls)))
    if facts.raises:
        sentences.append(phrases.raises.format(names=listed(facts.raises)))
    return phrases.space.join(sentences)
