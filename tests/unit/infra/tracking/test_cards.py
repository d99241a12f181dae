"""What of a long card is shown as a description."""

from infra.tracking.cards import CONTINUED, MAX_DESCRIPTION, shorten


def test_a_description_ends_with_a_whole_section_and_says_where_the_others_are() -> None:
    sections = [f"\n## Section {i}\n\n{'word ' * 100}end {i}." for i in range(20)]
    text = "# name/1\n\nopening\n" + "\n".join(sections)
    shown = shorten(text)
    assert MAX_DESCRIPTION - 700 < len(shown) <= MAX_DESCRIPTION
    assert shown.endswith(CONTINUED)
    body = shown.removesuffix(CONTINUED)
    assert text.startswith(body)
    assert body.rstrip().endswith(f"end {body.count('## Section') - 1}.")


def test_a_short_description_is_whole_and_one_without_sections_fits() -> None:
    assert shorten("# name\n\nshort") == "# name\n\nshort"
    assert len(shorten("word " * 2000)) == MAX_DESCRIPTION
