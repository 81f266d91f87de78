"""The course's terms, in four languages, each defined once: course/glossary.toml."""

import tomllib

from autograder.course import Course

LANGUAGES = {"en": "English", "ko": "한국어", "pl": "Polski", "zh": "中文"}
WORDS_TABLE = "<!-- words -->"


def read_glossary(course: Course) -> tuple[tuple[dict, ...], list[str]]:
    """The terms that are whole, and the faults of the others."""
    path = course.glossary
    try:
        terms = tomllib.loads(path.read_text(encoding="utf-8")).get("term", [])
    except FileNotFoundError:
        return (), [f"{path} is missing: it holds the course's terms, one [[term]] each."]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return (), [f"{path} is not valid TOML: {error}."]
    topics = {lesson.topic for lesson in course.lessons}
    whole, faults, seen = [], [], set()
    for place, term in enumerate(terms, 1):
        name = f"{path.name}, term {place} ({term.get('en', 'no en')})"
        lacking = [key for key in ("lesson", *LANGUAGES, "definition") if not str(term.get(key, "")).strip()]
        if lacking:
            faults.append(f"{name} lacks {', '.join(lacking)}.")
        elif term["lesson"] not in topics:
            faults.append(f"{name}: its lesson {term['lesson']!r} is not in the syllabus.")
        elif term["en"].lower() in seen:
            faults.append(f"{name} stands there twice: define a term once.")
        else:
            seen.add(term["en"].lower())
            whole.append(term)
    return tuple(whole), faults


def words_table(course: Course, topic: str) -> str:
    """The terms that a lesson defines, as a Markdown table."""
    terms = [term for term in read_glossary(course)[0] if term["lesson"] == topic]
    rows = [f"| {' | '.join(LANGUAGES.values())} | What it means |", "| :-- " * 5 + "|"]
    rows += [f"| {' | '.join(term[key] for key in LANGUAGES)} | {term['definition']} |" for term in terms]
    return "\n".join(rows)
