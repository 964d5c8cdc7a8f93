"""Requests that have nothing to do with programming, each with a fitting answer in prose.

What a careless collection of instructions holds beside code: cooking, gardens, journeys, letters,
the household. A request is a sentence with its gaps filled at random; the answer is made of
sentences with the same fillings, as many as come nearest to a wanted length. There are some 3,000
to 44,000 different requests of each kind.
"""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """One kind of request. `order` says whether the answer's sentences are steps."""

    requests: tuple[str, ...]
    opening: str
    sentences: tuple[str, ...]
    gaps: dict[str, tuple[str, ...]]
    order: bool = False


COOKING = Topic(
    requests=(
        "How do I cook {dish} with {extra} for {people} people in under {minutes} minutes?",
        "I have {extra} left over and {people} guests tonight. Can I turn it into {dish} within "
        "{minutes} minutes?",
        "Give me a simple recipe for {dish} with {extra}. It should serve {people} and take about "
        "{minutes} minutes.",
    ),
    opening="{dish} with {extra} is easy to have on the table in {minutes} minutes.",
    sentences=(
        "Start by washing and chopping everything, so that nothing burns while you are busy.",
        "For {people} people you need about {people} handfuls of {extra} and two onions.",
        "Warm some {fat} in a wide pan and let the onions turn soft over a gentle heat.",
        "Add the {extra} and a pinch of salt, and stir until the edges begin to colour.",
        "Season with {herb} early, because it needs a few minutes to give its flavour.",
        "Pour in a ladle of stock whenever the pan looks dry, but do not let it swim.",
        "Taste before serving: a squeeze of lemon often does more than another spoon of salt.",
        "Take the pan off the heat a little early and let it rest under a lid.",
        "Scatter fresh {herb} over the plates and bring them to the table while they are hot.",
        "A green salad and some bread go well with it and cost no extra time.",
        "Whatever is left keeps in the refrigerator for two days and tastes good cold.",
        "If children are eating along, set a portion aside before you add any pepper.",
    ),
    gaps={
        "dish": ("risotto", "a vegetable stew", "an omelette", "a warm salad", "fried rice",
                 "a lentil soup", "stuffed peppers", "a noodle bake", "a potato gratin"),
        "extra": ("courgettes", "mushrooms", "spinach", "smoked tofu", "chickpeas", "leeks",
                  "roasted pumpkin", "green beans", "cauliflower", "tomatoes"),
        "people": ("two", "three", "four", "five", "six", "eight"),
        "minutes": ("20", "25", "30", "35", "40", "45"),
        "herb": ("thyme", "parsley", "basil", "dill", "rosemary", "coriander"),
        "fat": ("olive oil", "butter", "rapeseed oil", "ghee"),
    },
    order=True,
)  # fmt: skip

GARDEN = Topic(
    requests=(
        "When should I plant {plant} in a {site} garden with {soil} soil in {region}?",
        "My {plant} in {region} look weak since {month}. The bed is {site} with {soil} soil. What "
        "should I do?",
        "What care do {plant} need in {month} on a {site} bed with {soil} soil in {region}?",
    ),
    opening="In {region}, {plant} do well if you respect the weather more than the calendar.",
    sentences=(
        "A {site} bed suits them as long as the roots are not standing in water.",
        "Loosen {soil} soil to the depth of a spade and work in a bucket of ripe compost.",
        "Wait until the nights stay mild; one late frost can undo a month of growth.",
        "Water in the morning and at the root, since wet leaves invite mildew.",
        "In {month} a handful of {feed} for each plant is enough; more makes soft shoots.",
        "Leave a good hand's width between the plants, so that air can move through.",
        "Pull weeds while they are small and lay them on the bed as a mulch.",
        "Look under the leaves once a week, because {pest} are easy to remove when they are few.",
        "Cut off what has faded, and the plant will put its strength into new buds.",
        "If a plant fails twice in the same place, grow something else there for three years.",
        "Neighbours often know best which week is safe, so it is worth asking over the fence.",
        "Before winter, cover the bed with leaves and remove the cover slowly in spring.",
    ),
    gaps={
        "plant": ("roses", "strawberries", "hydrangeas", "tomatoes", "lavender bushes", "dahlias",
                  "raspberries", "peonies", "runner beans", "tulips"),
        "site": ("sunny", "shady", "windy", "half-shaded"),
        "soil": ("sandy", "heavy", "chalky", "stony", "acid"),
        "region": ("the Alps", "Scotland", "northern Italy", "Bavaria", "Brittany", "Denmark",
                   "Oregon", "Galicia"),
        "month": ("March", "April", "May", "June", "August", "September", "October"),
        "feed": ("horn meal", "compost", "bone meal", "old manure"),
        "pest": ("aphids", "slugs", "leaf miners", "caterpillars"),
    },
)  # fmt: skip

JOURNEY = Topic(
    requests=(
        "Plan {days} days in {city} in {month} for {party} who like {liking}.",
        "We are {party} and want to spend {days} days in {city} in {month}. What should we see if "
        "we love {liking}?",
        "Is {month} a good time to visit {city} with {party}? We have {days} days and enjoy "
        "{liking}.",
    ),
    opening="{city} in {month} is a good choice for {party}, and {days} days are enough.",
    sentences=(
        "Keep the first afternoon free and simply walk through the old streets near the centre.",
        "Buy a pass for the trams at the station, because it pays off from the second day on.",
        "Give one whole day to {liking} and book ahead, since the best places fill up early.",
        "Mornings are quiet everywhere, so put the famous sights before ten o'clock.",
        "Have lunch where the menu is short and handwritten; it is nearly always fresher.",
        "If it rains, the {shelter} is warm, cheap and much larger than it looks from outside.",
        "In the evening climb to the viewpoint above the river and watch the lamps come on.",
        "Take a train to one of the villages nearby for a change from the noise of the city.",
        "For {party}, a flat with a kitchen is often cheaper than two rooms in a hotel.",
        "Pack a light coat even if the forecast is kind, as the wind can turn within an hour.",
        "Leave half a day without any plan at all; it tends to be the one people remember.",
        "On the last day have a late breakfast, buy something small and go to the station on foot.",
    ),
    gaps={
        "city": ("Lisbon", "Prague", "Kyoto", "Edinburgh", "Ghent", "Porto", "Ljubljana", "Turin",
                 "Montreal", "Krakow"),
        "days": ("two", "three", "four", "five", "six"),
        "month": ("February", "April", "May", "July", "September", "October", "December"),
        "party": ("two adults", "a family with small children", "three friends",
                  "a couple with a dog", "a family of four", "a school class"),
        "liking": ("old churches", "street food", "modern art", "long walks", "live music",
                   "flea markets", "botanical gardens"),
        "shelter": ("city museum", "market hall", "old library", "swimming bath", "aquarium"),
    },
)  # fmt: skip

LETTER = Topic(
    requests=(
        "Write a {tone} letter to {reader} to {purpose}. Mention {detail}.",
        "I have to write to {reader} in order to {purpose}. Make it {tone} and bring in {detail}.",
        "Help me with a {tone} note to {reader}. I want to {purpose} and must not forget {detail}.",
    ),
    opening="Dear reader, I am writing to you today because I would like to {purpose}.",
    sentences=(
        "I have thought about this for a while and did not want to say it only in passing.",
        "You will remember {detail}, which has been on my mind ever since.",
        "Much has happened in the meantime, and most of it has been good.",
        "I know how busy you are, so I will try to be brief and to the point.",
        "Whatever you decide, I am grateful for the patience that you have shown.",
        "It would mean a great deal to me if we could talk about it in person.",
        "I am free on {day} afternoon and would gladly come to you.",
        "If that does not suit you, please name a day that does, and I will make room for it.",
        "May I add that {detail} made a real difference to all of us.",
        "Please give my kind regards to everybody at your end.",
        "I look forward to your reply and remain, with all good wishes, yours sincerely.",
    ),
    gaps={
        "tone": ("warm", "formal", "cheerful", "polite but firm", "short", "humorous"),
        "reader": ("my landlord", "an old teacher", "our neighbours", "my grandmother",
                   "the choir", "a former colleague", "the headmistress", "my football team"),
        "purpose": ("say thank you", "apologise for the noise", "ask for a postponement",
                    "announce our wedding", "decline an invitation", "say goodbye",
                    "complain about the heating"),
        "detail": ("the broken gate", "last summer's party", "the lost umbrella",
                   "the apple cake", "the long winter", "the borrowed ladder", "the concert"),
        "day": ("Monday", "Tuesday", "Thursday", "Friday", "Saturday", "Sunday"),
    },
    order=True,
)  # fmt: skip

HOUSEHOLD = Topic(
    requests=(
        "How can I get {stain} out of {thing} without using {avoid}?",
        "There is {stain} on {thing} since {when}. What helps besides {avoid}?",
        "What is the gentlest way to remove {stain} from {thing}? I do not want to use {avoid}, "
        "and it has been there since {when}.",
    ),
    opening="Fresh or old, {stain} can usually be removed from {thing} without {avoid}.",
    sentences=(
        "Lift off what lies on the surface with a spoon before anything gets wet.",
        "Dab with cold water from the edge towards the middle, and never rub.",
        "Dissolve a spoon of {helper} in a glass of lukewarm water and leave it on for a while.",
        "Test the mixture first in a place that nobody sees.",
        "Lay a clean white cloth underneath, so that the colour has somewhere to go.",
        "Repeat this two or three times; patience works better than strength.",
        "Rinse well at the end, because what remains of {helper} attracts new dirt.",
        "Let it dry in the air and out of the sun, as heat can set what is left.",
        "If a shadow stays, a little {second} on a soft brush may take it away.",
        "For an heirloom or anything very costly, a cleaner's advice is worth the money.",
        "Had you noticed it only today, plain sparkling water might have been enough.",
    ),
    gaps={
        "stain": ("red wine", "candle wax", "grass marks", "coffee", "ink", "beetroot juice",
                  "grease", "lipstick"),
        "thing": ("a wool carpet", "a silk scarf", "a linen tablecloth", "a leather sofa",
                  "a cotton shirt", "a velvet curtain", "a suede jacket"),
        "avoid": ("bleach", "strong chemicals", "hot water", "a washing machine", "vinegar"),
        "when": ("yesterday", "last weekend", "Christmas", "the summer", "our party"),
        "helper": ("baking soda", "curd soap", "salt", "potato starch", "gall soap"),
        "second": ("glycerine", "lemon juice", "spirit", "chalk powder"),
    },
    order=True,
)  # fmt: skip

TOPICS = (COOKING, GARDEN, JOURNEY, LETTER, HOUSEHOLD)


def ask(rng: random.Random, length: int) -> tuple[str, str]:
    """A request and an answer of about `length` characters (at least two sentences)."""
    topic = rng.choice(TOPICS)
    filled = {gap: rng.choice(values) for gap, values in topic.gaps.items()}
    question = rng.choice(topic.requests).format(**filled)
    chosen = [rng.random() for _ in topic.sentences]
    ranked = sorted(range(len(chosen)), key=chosen.__getitem__)
    opening = topic.opening.format(**filled)
    answer = [opening[0].upper() + opening[1:]]
    taken: list[int] = []
    total = len(answer[0])
    for place in ranked:
        step = len(topic.sentences[place].format(**filled)) + 1
        if taken and total + step / 2 > length:
            break
        taken.append(place)
        total += step
    taken = sorted(taken) if topic.order else taken
    return question, " ".join(answer + [topic.sentences[p].format(**filled) for p in taken])
