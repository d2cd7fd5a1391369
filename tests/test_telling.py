"""What is under way, told."""

from onnxlrp.telling import counted, heard, tell


def test_nobody_needs_to_listen():
    tell("reading")
    assert list(counted("abc", "letters")) == ["a", "b", "c"]


def test_what_is_told_of_things_and_not_of_the_work_on_each():
    told = []
    with heard(lambda *said: told.append(said)):
        tell("reading")
        for letter in counted("ab", "letters"):
            tell(f"working on {letter}")
        for _ in counted(iter("xy"), "more", total=5, before=3):
            break
        tell("writing")
    tell("done")
    assert told == [
        ("reading", 0, 0),
        ("letters", 0, 2),
        ("letters", 1, 2),
        ("letters", 2, 2),
        ("more", 3, 5),
        ("writing", 0, 0),
    ]


def test_of_what_cannot_be_counted_only_how_many_are_done():
    told = []
    with heard(lambda *said: told.append(said)):
        list(counted(iter("ab"), "letters"))
    assert told[-1] == ("letters", 2, 0)


def test_counting_that_was_forgotten_tells_nobody_after_its_listener_left():
    told = []
    with heard(lambda *said: told.append(said)):
        left = counted("abc", "letters")
        next(left)
    left.close()
    tell("reading")
    assert told == [("letters", 0, 3)]
