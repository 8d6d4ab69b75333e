"""Random words for insertion and replacement: common, in no way about instructions, written down for this project."""

from __future__ import annotations

# fmt: off
WORDS = (
    "acorn", "almond", "amber", "anchor", "apron", "arrow", "autumn", "bakery", "balcony", "bamboo", "banana",
    "barley", "basin", "basket", "beacon", "beaver", "bicycle", "blanket", "blossom", "bottle", "branch", "breeze",
    "brick", "bridge", "bronze", "bucket", "butter", "button", "cabbage", "cabin", "camel", "candle", "canyon",
    "carpet", "carrot", "castle", "cedar", "cellar", "chalk", "cherry", "chimney", "circle", "cliff", "clover",
    "coast", "coconut", "copper", "coral", "corner", "cotton", "cradle", "crystal", "cupboard", "curtain", "daisy",
    "damp", "dawn", "desert", "diamond", "dolphin", "donkey", "drawer", "drift", "drum", "dusty", "eagle", "early",
    "earth", "elbow", "elm", "ember", "empty", "engine", "evening", "faint", "falcon", "feather", "fence", "fern",
    "ferry", "fiddle", "flame", "flour", "flute", "forest", "fountain", "fresh", "frozen", "garden", "garlic",
    "gentle", "ginger", "glacier", "glass", "glove", "golden", "gravel", "green", "guitar", "hammer", "harbour",
    "harvest", "hazel", "heavy", "hollow", "honey", "horizon", "hungry", "icicle", "indigo", "island", "ivory",
    "jacket", "jasmine", "jungle", "kettle", "kitchen", "kitten", "ladder", "lantern", "laurel", "lavender",
    "leather", "lemon", "lively", "lizard", "lonely", "lumber", "magnet", "mango", "maple", "marble", "meadow",
    "mellow", "melon", "mirror", "misty", "morning", "mountain", "muddy", "mustard", "narrow", "needle", "nettle",
    "noisy", "oak", "oatmeal", "ocean", "olive", "onion", "orange", "orchard", "otter", "oven", "oyster", "paddle",
    "palm", "pasture", "pebble", "pencil", "pepper", "pickle", "pigeon", "pillow", "planet", "plum", "pocket",
    "polish", "pond", "poplar", "pottery", "puddle", "pumpkin", "purple", "quarry", "quiet", "quilt", "rabbit",
    "rainy", "raven", "ribbon", "ripple", "river", "roast", "rocket", "rough", "rustic", "saddle", "sailor",
    "salty", "sandal", "scarf", "seaside", "shadow", "shallow", "sheep", "shelf", "shiny", "silver", "sleepy",
    "slope", "smooth", "snowy", "soap", "spicy", "spider", "spoon", "spring", "squirrel", "stable", "steep",
    "stone", "stormy", "straw", "summer", "sunny", "swamp", "sweater", "swift", "tailor", "teapot", "thunder",
    "ticket", "timber", "tomato", "tower", "trumpet", "tulip", "tunnel", "turtle", "umbrella", "upward", "valley",
    "velvet", "village", "violet", "violin", "wagon", "walnut", "warm", "weasel", "whisper", "willow", "windy",
    "winter", "wooden", "woollen", "yellow", "zebra",
)
# fmt: on
