"""Rhyme classes and lines of verse.

Each noun has an epithet of its own within its class.  A second line with an epithet therefore
has to be planned: "the silver" can only come before "moon", so a model that writes "silver"
must already have planned that the line rhymes with "spoon".
"""

RHYMES: dict[str, dict[str, str]] = {
    "ain": {"rain": "gentle", "train": "rusty", "crane": "hungry", "chain": "golden"},
    "ake": {"lake": "frozen", "cake": "sweet", "snake": "clever", "rake": "broken"},
    "air": {"bear": "hungry", "chair": "broken", "pear": "sweet", "hare": "clever"},
    "all": {"wall": "old", "ball": "golden", "hall": "empty", "shawl": "woolly"},
    "at": {"cat": "clever", "hat": "woolly", "bat": "hungry", "mat": "dusty"},
    "ed": {"bed": "empty", "bread": "sweet", "thread": "golden", "sled": "broken"},
    "ee": {"tree": "old", "bee": "busy", "key": "rusty", "sea": "gentle"},
    "ell": {"bell": "silver", "shell": "broken", "well": "empty", "smell": "sweet"},
    "ight": {"night": "starry", "light": "gentle", "knight": "brave", "kite": "golden"},
    "ing": {"king": "brave", "ring": "silver", "wing": "broken", "spring": "sweet"},
    "oat": {"boat": "rusty", "goat": "hungry", "coat": "woolly", "note": "secret"},
    "ock": {"clock": "old", "rock": "golden", "sock": "woolly", "lock": "rusty"},
    "og": {"dog": "brave", "frog": "hungry", "log": "old", "fog": "gentle"},
    "ook": {"book": "secret", "hook": "rusty", "cook": "busy", "brook": "frozen"},
    "oon": {"moon": "silver", "spoon": "broken", "tune": "gentle", "balloon": "golden"},
    "ouse": {"house": "empty", "mouse": "clever", "blouse": "woolly", "grouse": "hungry"},
    "ower": {"flower": "sweet", "tower": "old", "shower": "gentle", "hour": "golden"},
    "ox": {"fox": "clever", "box": "secret", "ox": "brave", "socks": "woolly"},
}

FIRST_LINES = (
    "I went outside to see the {noun},",
    "One day we came across the {noun},",
    "My brother dreamed about the {noun},",
    "She wrote a song about the {noun},",
    "They walked for days to find the {noun},",
    "He told a tale about the {noun},",
    "I sat and looked upon the {noun},",
    "We could not sleep without the {noun},",
)

SECOND_LINES = (
    "and all I found there was the {noun}.",
    "and then I thought about the {noun}.",
    "and next to it there was the {noun}.",
    "and there I saw the {epithet} {noun}.",
    "and in the dark I found the {epithet} {noun}.",
    "and no one saw the {epithet} {noun}.",
    "and far away I heard the {epithet} {noun}.",
    "and so I gave away my {epithet} {noun}.",
)
