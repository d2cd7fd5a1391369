import numpy as np
import pytest
from support import normal
from witness.attribution import distance, through_layer
from witness.layers import PAIRS, cases, explained, layer
from witness.ledger import LAYERS as TABLE


@pytest.mark.parametrize(("name", "rule"), PAIRS)
def test_a_layer_is_as_in_zennit(name, rule, ledger):
    tested, shape = layer(name)
    for rectified in (False, True):
        x = normal(2, *shape, seed=1) + np.float32(0.5)
        seen = np.maximum(x, 0) if rectified else x
        for case in cases(rule, shape):
            found = explained(tested, x, case, rectified)
            wanted = through_layer(tested, case.theirs(), seen, found.relevance("y"))
            apart = distance(found.values["relevance"], wanted)
            ledger.compare((TABLE, name, rule), apart, 1e-5)
