"""The suffix of blocks after an edited module gives the logits of the whole model."""

import pytest
import torch
from editing_helpers import EDITABLE, PROMPT, SUBJECT, TARGET

from toumei.core.hooks import hooked
from toumei.transformers.rome.editing.requests import subject_text
from toumei.transformers.rome.editing.suffix import Suffix


@pytest.mark.parametrize("kind", EDITABLE)
def test_the_end_of_a_model_gives_the_logits_of_all_of_it(kind, language_model, tokenizer):
    from toumei.transformers.model.families import anatomy

    parts = anatomy(language_model(kind))
    rows = [
        subject_text(tokenizer, template, SUBJECT, TARGET) for template in (PROMPT, "{} w8 w9 w10 w11 w12")
    ]
    draw = torch.Generator().manual_seed(3)
    for layer, stream in ((0, False), (1, False), (1, True), (2, True)):
        suffix = Suffix(parts, layer, stream, rows)
        added = torch.randn(2, parts.width, generator=draw)
        places = [range(len(r.ids)) for r in rows]
        found = suffix.logits([0, 1], places, added).split([len(r.ids) for r in rows])
        for r, mine, delta in zip(rows, found, added, strict=True):

            def add(output, r=r, delta=delta):
                output.view(1, len(r.ids), -1)[0, r.subject] += delta
                return output

            with hooked(parts.model, edit={suffix.module: add}), torch.no_grad():
                wanted = parts.model(torch.tensor([r.ids])).logits[0]
            assert torch.allclose(mine, wanted, atol=1e-4)
