"""The analyzer: streaming, padding, planted clusters, and what it refuses."""

from contextlib import contextmanager

import matplotlib.pyplot as plt
import pytest
import torch
from transformers import BertConfig, BertModel

from toumei.core.errors import ArgumentError, NonFiniteError, ShapeError, TrackingError
from toumei.instrument import instrument
from toumei.instrument.heads.attention_batches import AttentionBatch
from toumei.instrument.heads.clustering import AttentionHeadClusterAnalyzer, cluster_attention_heads
from toumei.instrument.heads.clusters import AttentionHeadClusteringResult
from toumei.instrument.heads.divergences import head_divergences
from toumei.instrument.heads.pictures import plot_heads

HEADS = (3, 2)  # of the two layers


def text(tokens, seed, heads=HEADS):
    """The weights of one text, (1, heads, tokens, tokens) of each layer, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(1, count, tokens, tokens, generator=generator, dtype=torch.float64).mul(2).softmax(-1)
        for count in heads
    ]


def padded(texts, length, left=False):
    """Texts as one batch, whose padding attends and is attended to at random, and its mask."""
    mask = torch.zeros(len(texts), length, dtype=torch.long)
    layers = [weights.repeat(len(texts), 1, 1, 1) for weights in text(length, 99)]
    for index, weights in enumerate(texts):
        tokens = weights[0].shape[-1]
        here = slice(length - tokens, length) if left else slice(tokens)
        mask[index, here] = 1
        for layer, own in zip(layers, weights, strict=True):
            layer[index, :, here] = 0
            layer[index, :, here, here] = own[0]
    return layers, mask


def analyzed(*batches, **settings):
    analyzer = AttentionHeadClusterAnalyzer(**settings)
    for batch in batches:
        analyzer.add(*batch) if isinstance(batch, tuple) else analyzer.add(batch)
    return analyzer.analyze()


def assert_same(first, second):
    torch.testing.assert_close(first.divergences, second.divergences, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        first.standard_errors, second.standard_errors, rtol=1e-6, atol=1e-9, equal_nan=True
    )
    for name, values in vars(first.behaviours).items():
        other = getattr(second.behaviours, name)
        assert (values is None) == (other is None)
        if values is not None:
            torch.testing.assert_close(values, other, rtol=1e-10, atol=1e-12)
    assert (first.texts, first.rows, first.compared_rows) == (second.texts, second.rows, second.compared_rows)


TEXTS = [text(tokens, seed) for seed, tokens in enumerate((7, 4, 9, 5))]


def test_the_divergence_is_the_mean_over_the_rows_of_all_texts():
    sums = sum(head_divergences(torch.cat(weights, 1)[0]) for weights in TEXTS)
    result = analyzed(*TEXTS)
    torch.testing.assert_close(result.divergences, sums / 25)
    torch.testing.assert_close(result.summed_divergences, sums)
    assert (result.texts, result.rows, result.compared_rows) == (4, 25, 25)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("length", [9, 13])
@pytest.mark.parametrize("rows_per_text", [None, 3])
def test_padding_and_batches_change_nothing(left, length, rows_per_text):
    alone = analyzed(*TEXTS, rows_per_text=rows_per_text)
    together = analyzed(padded(TEXTS, length, left), rows_per_text=rows_per_text)
    halves = analyzed(
        padded(TEXTS[:1], length, left), padded(TEXTS[1:], 9, left), rows_per_text=rows_per_text
    )
    assert_same(alone, together)
    assert_same(alone, halves)


def test_padding_between_tokens_is_left_out_too():
    layers, mask = padded(TEXTS[:1], 10)
    order = torch.tensor([0, 8, 1, 2, 9, 3, 4, 7, 5, 6])
    mixed = [weights[:, :, order][..., order] for weights in layers]
    assert_same(analyzed(TEXTS[0]), analyzed((mixed, mask[:, order])))


def test_weights_that_go_to_padding_are_shared_out_among_the_tokens():
    layers, mask = padded(TEXTS[:1], 10)
    for weights in layers:
        weights[:, :, :7] *= 0.5
        weights[:, :, :7, 7] = 0.5
    assert_same(analyzed(TEXTS[0]), analyzed((layers, mask)))


def test_texts_without_a_token_do_not_count():
    layers, mask = padded(TEXTS[:2], 9)
    empty = [torch.cat([weights, torch.full_like(weights[:1], torch.nan)]) for weights in layers]
    assert_same(analyzed((layers, mask)), analyzed((empty, torch.cat([mask, 0 * mask[:1]]))))


def test_half_precision_is_close_to_double():
    halves = [[weights.half() for weights in one] for one in TEXTS]
    torch.testing.assert_close(
        analyzed(*halves).divergences, analyzed(*TEXTS).divergences, rtol=1e-3, atol=1e-5
    )


def planted_clusters():
    """Nine heads in three groups, each a pattern with a little noise; the groups alternate."""
    generator = torch.Generator().manual_seed(0)
    eye = torch.eye(20)
    patterns = [eye.roll(1, 1), eye.roll(-3, 1), eye[:1].expand(20, 20)]
    noise = torch.rand(9, 20, 20, generator=generator).softmax(-1)
    return torch.stack([0.9 * patterns[head % 3] + 0.1 * noise[head] for head in range(9)])[None]


def test_planted_clusters_are_found_and_lie_apart_on_the_map():
    result = cluster_attention_heads([[planted_clusters()]], verbose=False)
    groups = torch.arange(9) % 3
    assert result.clusters(3).tolist() == groups.tolist()
    distances = torch.cdist(result.coordinates, result.coordinates)
    same = groups[:, None] == groups
    assert distances[same].max() < 0.3 * distances[~same].min()
    assert groups[result.order].unique_consecutive().numel() == 3


def test_a_cluster_for_each_head_and_one_for_all():
    result = analyzed(*TEXTS)
    assert result.clusters(5).tolist() == [0, 1, 2, 3, 4]
    assert result.clusters(1).tolist() == [0] * 5
    with pytest.raises(ArgumentError, match="expected 1 to 5 clusters, as many as heads, got 6"):
        result.clusters(6)


def test_three_equally_different_heads_have_a_map_without_stress():
    """One-hot heads all have the same divergence: a triangle, whose sides are the divergences."""
    weights = torch.eye(3)[:, None].expand(3, 3, 3)[None]
    result = cluster_attention_heads([[weights]], verbose=False)
    assert result.stress < 1e-3
    torch.testing.assert_close(
        torch.cdist(result.coordinates, result.coordinates), result.divergences, rtol=1e-3, atol=1e-3
    )


def test_tokens_tell_separators_and_punctuation():
    tokens = torch.tensor([[1, 5, 9, 7, 9, 8, 2, 0, 0]])
    layers, mask = padded(TEXTS[:1], 9)
    found = analyzed((layers, mask, tokens), separators=[1, 2], punctuation=[9]).behaviours
    weights = torch.cat(TEXTS[0], 1)[0]
    torch.testing.assert_close(found.separator, weights[..., [0, 6]].sum(-1).mean(-1))
    torch.testing.assert_close(found.punctuation, weights[..., [2, 4]].sum(-1).mean(-1))
    by_mask = AttentionBatch(layers, mask, separators=torch.isin(tokens, torch.tensor([1, 2])).long())
    other = cluster_attention_heads([by_mask], verbose=False).behaviours
    assert torch.equal(other.separator, found.separator)
    assert other.punctuation is None


@contextmanager
def source():
    batch = AttentionBatch()
    yield batch
    batch.weights = {"encoder.0": TEXTS[0][0], "encoder.1": TEXTS[0][1]}


def test_a_tracked_batch_counts_when_its_block_ends():
    analyzer = AttentionHeadClusterAnalyzer(source)
    with analyzer.track_batch():
        pass
    result = analyzer.analyze()
    assert_same(result, analyzed(TEXTS[0]))
    assert result.layer_names == ("encoder.0", "encoder.1")
    with analyzer.track_batch(mask=torch.tensor([[1] * 5 + [0] * 2])):
        pass
    assert analyzer.analyze().rows == 12


def test_the_probe_of_a_model_records_each_pass_with_its_mask():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    ids, mask = torch.arange(12).view(2, 6), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    with instrument(model) as probe, torch.no_grad():
        tracked = AttentionHeadClusterAnalyzer(probe)
        for _ in range(2):  # the first pass finds the attentions, the second reads them by name
            with tracked.track_batch():
                model(input_ids=ids, attention_mask=mask)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = model(input_ids=ids, attention_mask=mask, output_attentions=True).attentions
    given = AttentionHeadClusterAnalyzer()
    for _ in range(2):
        given.add(weights, mask)
    assert tracked.analyze().rows == given.analyze().rows == 20
    torch.testing.assert_close(tracked.analyze().divergences, given.analyze().divergences, atol=1e-6, rtol=0)


def test_a_batch_whose_block_fails_does_not_count():
    analyzer = AttentionHeadClusterAnalyzer(source)
    with pytest.raises(KeyError, match="boom"), analyzer.track_batch():
        raise KeyError("boom")
    with pytest.raises(ArgumentError, match="no text was added yet"):
        analyzer.analyze()


def test_the_map_is_a_list_of_dictionaries():
    analyzer = AttentionHeadClusterAnalyzer(source)
    with analyzer.track_batch():
        pass
    result = analyzer.analyze()
    assert [(one["tensor_id"], one["head_index"]) for one in result.mds] == [
        *(("encoder.0", head) for head in range(3)),
        *(("encoder.1", head) for head in range(2)),
    ]
    assert [[one["x"], one["y"]] for one in result.mds] == result.coordinates.tolist()
    assert result.names == ("0.0", "0.1", "0.2", "1.0", "1.1")


def test_it_is_saved_and_loaded(tmp_path):
    result = analyzed(*TEXTS)
    result.save(tmp_path / "heads.safetensors")
    loaded = AttentionHeadClusteringResult.load(tmp_path / "heads.safetensors")
    assert_same(result, loaded)
    assert torch.equal(loaded.coordinates, result.coordinates)
    assert (loaded.labels, loaded.layer_names, loaded.stress) == (
        result.labels,
        result.layer_names,
        result.stress,
    )


def test_the_map_has_a_point_and_a_name_for_each_head():
    result = analyzed(*TEXTS)
    axes = result.plot(figsize=(4, 4))
    points = sum(len(collection.get_offsets()) for collection in axes.collections)
    assert points == len(result) == 5
    assert set(result.names) <= {written.get_text() for written in axes.texts}
    assert tuple(axes.figure.get_size_inches()) == (4, 4)
    plt.close(axes.figure)


def test_no_name_on_a_map_of_many_heads_covers_another_or_a_point():
    heads, generator = 300, torch.Generator().manual_seed(0)
    places = torch.randn(heads, 2, generator=generator, dtype=torch.float64)
    layers = torch.arange(heads) // 10
    names = [f"{head // 10}.{head % 10}" for head in range(heads)]
    axes = plot_heads(places, layers, names, ["first", *["other"] * (heads - 1)], 0.1)
    axes.figure.canvas.draw()
    written = [text for text in axes.texts if text.get_text() in names]
    assert 100 < len(written) < heads
    points = axes.transData.transform(places.numpy())
    boxes = [text.get_window_extent().padded(-0.5) for text in written]  # letters move to whole pixels
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
        assert not any(box.contains(*point) for point in points)
    plt.close("all")


def test_both_pictures_are_drawn_on_given_axes():
    figure, (left, right) = plt.subplots(1, 2)
    result = analyzed(*TEXTS)
    assert result.plot(ax=left) is left
    assert result.plot_divergences(right) is right
    names = [result.names[head] for head in result.order.tolist()]
    assert [tick.get_text() for tick in right.get_xticklabels()] == names
    plt.close(figure)


def test_texts_about_it_are_short_and_readable():
    result = analyzed(*TEXTS, rows_per_text=2)
    assert repr(result) == "AttentionHeadClusteringResult(5 heads of 2 layers over 4 texts, 25 rows: 5 other)"
    assert "8 of the rows, drawn at random, were compared" in str(result)
    assert "<td>0.0, 0.1, 0.2, 1.0, 1.1</td>" in result._repr_html_()


@pytest.mark.parametrize(
    "weights, error, message",
    [
        ([], ArgumentError, "no attention weights"),
        ([torch.zeros(1, 2, 0, 0)], ShapeError, "are empty"),
        ([torch.eye(3)], ShapeError, r"expected attention weights \(batch, heads, query, key\) of layer '0'"),
        ([torch.ones(1, 2, 3, 4) / 4], ShapeError, "3 queries and 4 keys"),
        (
            [torch.ones(1, 2, 3, 3) / 3, torch.ones(1, 2, 4, 4) / 4],
            ShapeError,
            "all layers see the same tokens",
        ),
        ([torch.ones(1, 2, 3, 3)], ArgumentError, "the sum 1, one in layer '0' is off by 2"),
        ([torch.tensor([2.0, -1.0]).expand(1, 2, 2, 2)], ArgumentError, "0 or more, got -1"),
        ([torch.full((1, 2, 2, 2), torch.nan)], NonFiniteError, "NaN or infinity"),
        ([torch.ones(1, 2, 2, 2, dtype=torch.long)], ShapeError, "expected attention weights"),
        ([torch.ones(1, 1, 3, 3) / 3], ArgumentError, "two heads or more are compared"),
        (torch.ones(1, 2, 3, 3) / 3, ArgumentError, "a tensor .* for each layer"),
    ],
)
def test_what_are_no_attention_weights_is_refused(weights, error, message):
    with pytest.raises(error, match=message):
        AttentionHeadClusterAnalyzer().add(weights)


def test_a_refused_batch_leaves_what_was_added():
    analyzer = AttentionHeadClusterAnalyzer()
    analyzer.add(TEXTS[0])
    with pytest.raises(ShapeError, match=r"earlier batches had the heads .* this one has \{'0': 2, '1': 3\}"):
        analyzer.add(text(5, 0, heads=(2, 3)))
    layers, mask = padded(TEXTS[:2], 9)
    for weights in layers:
        weights[1, :, 2] = torch.eye(9)[8]
    with pytest.raises(ArgumentError, match="a token of text 1 attends to padding only"):
        analyzer.add(layers, mask)
    assert_same(analyzer.analyze(), analyzed(TEXTS[0]))


@pytest.mark.parametrize(
    "mask, error, message",
    [
        (torch.ones(1, 8), ShapeError, r"expected mask \(batch, length\) = \(1, 7\), got a tensor \(1, 8\)"),
        (torch.ones(1, 1, 7, 7), ShapeError, "expected mask"),
        (torch.full((1, 7), -torch.inf), ArgumentError, "mask is 1 for tokens that count and 0 for others"),
    ],
)
def test_other_masks_are_refused(mask, error, message):
    with pytest.raises(error, match=message):
        AttentionHeadClusterAnalyzer().add(TEXTS[0], mask)


def test_separators_need_tokens_in_every_batch():
    with pytest.raises(ArgumentError, match="separators are .* the batch has no tokens"):
        AttentionHeadClusterAnalyzer(separators=[2]).add(TEXTS[0])
    analyzer = AttentionHeadClusterAnalyzer()
    analyzer.add(TEXTS[0])
    with pytest.raises(ArgumentError, match="of all batches or of none"):
        analyzer.add_batch(AttentionBatch(TEXTS[1], separators=torch.zeros(1, 4)))


def test_nothing_to_record_with_nothing_added_and_no_rows_are_refused():
    with pytest.raises(TrackingError, match="fmrai"), AttentionHeadClusterAnalyzer().track_batch():
        pass
    with pytest.raises(ArgumentError, match="no text was added yet"):
        cluster_attention_heads([], verbose=False)
    with pytest.raises(ArgumentError, match="rows_per_text is a whole number from 1 on, got 0"):
        AttentionHeadClusterAnalyzer(rows_per_text=0)
