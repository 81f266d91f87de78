"""A syllabus is read whole, or the author is told which key of which lesson to change."""

import shutil

import pytest
from courses import FIXTURE, copy_of_fixture

from autograder.course import Course, CourseError

LESSON = (FIXTURE / "syllabus.toml").read_text(encoding="utf-8")


@pytest.fixture
def course(tmp_path):
    return copy_of_fixture(tmp_path)


def test_a_lesson_has_its_fields_and_its_name(course):
    (lesson,) = course.lessons
    assert lesson.name == "03_triangles"
    assert (lesson.points, lesson.minutes, lesson.withheld) == (10, 15, ("jacobians",))


@pytest.mark.parametrize("topic", ["triangles", "03_triangles", "03", "3"])
def test_a_lesson_answers_to_each_of_its_names(course, topic):
    assert course.lesson(topic) is course.lessons[0]


def test_a_misspelt_topic_gets_the_closest_and_the_list():
    with pytest.raises(
        CourseError, match=r"'copuling'. Did you mean .*coupling.* The lessons are 00_start, "
    ):
        Course("course").lesson("copuling")


def test_lessons_and_solutions_lie_beside_the_course(course, tmp_path):
    assert course.published == tmp_path / "lessons"
    assert course.solutions == tmp_path / "solutions"
    assert course.release == tmp_path / "course" / "release"
    assert course.gradebook == f"sqlite:///{tmp_path}/course/gradebook.db"
    assert Course(course.folder, db="postgresql://class").gradebook == "postgresql+psycopg://class"


def test_topics_are_chosen_in_the_order_of_the_syllabus():
    course = Course("course")
    last, first = course.lessons[-1], course.lessons[0]
    assert course.choose([last.topic, first.name, last.name]) == (first, last)
    assert course.choose() == course.lessons


def test_a_missing_master_is_named(course):
    shutil.rmtree(course.masters)
    with pytest.raises(CourseError, match=r"03_triangles\.py is missing"):
        course.master(course.lessons[0])


def test_a_missing_folder_or_syllabus_is_named(tmp_path):
    with pytest.raises(CourseError, match=r"No course at .*nowhere: say where it is with --course"):
        Course(tmp_path / "nowhere")
    with pytest.raises(CourseError, match=r"syllabus\.toml is missing"):
        Course(tmp_path)


BROKEN = {
    "points = 10": ("points = 'ten'", "'points' of lesson 1 .triangles. must be a whole number, not 'ten'"),
    "minutes = 15": ("minutes = true", "'minutes' of lesson 1 .triangles. must be a whole number, not True"),
    'title = "Triangles"': ("", "lesson 1 .triangles. has no 'title'"),
    "order = 3": (
        "order = 3\ncolour = 1",
        "has a key 'colour' that means nothing; the keys are order, topic",
    ),
    'topic = "triangles"': ('topic = "the triangles"', "'topic' .* must be a Python name"),
    "prerequisites = []": ('prerequisites = ["circles"]', "names 'circles', which is no lesson"),
    'withheld = ["jacobians"]': ("withheld = 1", "'withheld' .* must be a list of names, not 1"),
    "[[lesson]]": ("[[lesson", "is not valid TOML"),
}


@pytest.mark.parametrize("line", BROKEN)
def test_a_broken_syllabus_names_the_key_and_the_lesson(course, line):
    broken, message = BROKEN[line]
    course.syllabus.write_text(LESSON.replace(line, broken, 1), encoding="utf-8")
    with pytest.raises(CourseError, match=message):
        Course(course.folder)


SECOND = LESSON[LESSON.index("[[lesson]]") :]
CONFLICTS = {
    "order": (SECOND.replace("triangles", "circles"), "'order' of circles is 3, which triangles has already"),
    "topic": (SECOND.replace("order = 3", "order = 4"), "two lessons have the topic 'triangles'"),
    "later": (
        SECOND.replace("order = 3", "order = 2")
        .replace("triangles", "circles")
        .replace("prerequisites = []", 'prerequisites = ["triangles"]'),
        "'prerequisites' of circles names 'triangles', which comes after it",
    ),
}


@pytest.mark.parametrize("kind", CONFLICTS)
def test_lessons_that_contradict_each_other_are_named(course, kind):
    second, message = CONFLICTS[kind]
    course.syllabus.write_text(LESSON + "\n" + second, encoding="utf-8")
    with pytest.raises(CourseError, match=message):
        Course(course.folder)
