"""Text as it is compared: in searches, in the order of titles, between tags. Pure, and the same on every database."""

import unicodedata

MAX_WORDS = 20


def fold(text: str) -> str:
    """`text` without regard to case, in any script; letters with accents in the one composed form (Unicode, 3.13)."""
    if text.isascii():  # much faster, and the same
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def words(query: str) -> list[str]:
    """What a search looks for: each word, folded, must occur somewhere."""
    return fold(query).split()
