import pytest


@pytest.mark.parametrize(
    "name",
    [
        "epsilon",
        "epsilon_plus",
        "epsilon_plus_flat",
        "epsilon_alpha2_beta1",
        "epsilon_alpha2_beta1_flat",
        "binder2016_epsilon",
        "binder2016_beta",
    ],
)
def test_every_composite_that_ships_is_listed(run, name: str):
    result = run("composites")
    assert result.exit_code == 0
    assert name in [line.split()[0] for line in result.stdout.splitlines() if line.strip()]
