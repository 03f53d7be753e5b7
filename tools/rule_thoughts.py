"""Reasoning by rule: what a query asks for, which of its words a passage has, and a verdict by the score."""
import re

STOP_WORDS = set("""a about after all an and any are as at be been before between by can could did do does doing for from
had has have how i if in into is it its me more most my no not of on or our should so some such than that the their them
then there these they this those through to under up us use used using vs was we were what when where which while who whom
whose why will with would you your""".split())


def stem(word):
    return re.sub(r"(ing|edly|ed|ies|es|s|ly|ion|ions)$", "", word) if len(word) > 4 else word


def thought_of(query, text, score):
    terms = []
    for word in re.findall(r"[^\W_]+", query.lower()):
        if word not in STOP_WORDS and word not in terms:
            terms.append(word)
    terms = terms[:5]
    stems = {stem(word) for word in re.findall(r"[^\W_]+", text.lower())}
    found = [t for t in terms if stem(t) in stems]
    missing = [t for t in terms if stem(t) not in stems]
    verdict = ("It is about something else.", "It shares a word, not the topic.", "It is near the topic, no answer.",
               "It touches the question.", "It answers in part.", "It answers the question.")[min(5, (score + 1) // 2)]
    offers = f"It has {', '.join(found)}" if found else "It has none of it"
    lacks = f", lacks {', '.join(missing)}" if found and missing else ""
    return f"Asked: {', '.join(terms) or 'nothing clear'}. {offers}{lacks}. {verdict}"
