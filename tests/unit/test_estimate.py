"""What a study computes: counted as its stages would, bracketed where responses and filters decide."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal import estimate
from refusal.checking import read_yaml
from refusal.errors import UserError
from refusal.estimate import Gauge, Shapes, Work
from refusal.study import combination_ids, read_study

ROOT = Path(__file__).parents[2]
GAUGE = Gauge("cpu", wide=1e11, narrow=5e10, bandwidth=1e10)
LLAMA8B = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip
MIXTRAL = LLAMA8B | {"num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 32000}


def study(model="tiny", **changes):
    config = read_yaml(ROOT / "config/config.yaml") | changes
    return read_study(config, model), combination_ids(config)


class TestShapes:
    def test_a_dense_model(self):
        found = estimate.shapes(LLAMA8B, "llama3")
        assert found.parameters == 8_029_995_008  # norms aside, as published: 8,030,261,248
        assert found.weights("bfloat16") == 2 * found.parameters
        assert found.keys_values == 2 * 32 * 8 * 128
        assert found.linear == found.parameters - 2 * 128256 * 4096

    def test_a_mixture_computes_with_some_of_its_experts(self):
        found = estimate.shapes(MIXTRAL, "mixtral")
        assert round(found.parameters / 1e9, 1) == 46.7
        assert round(found.linear / 1e9, 1) == 12.6
        assert found.inner == 2 * 14336

    @pytest.mark.parametrize("family", ["Llama", "GPT2", "Mixtral", "Gemma3", "Qwen3"])
    def test_what_the_config_tells_is_what_the_weights_have(self, identity, family):
        folder = Path(json.loads(identity(family).read_text())["load"]["folder"])
        counted = estimate.counted_parameters(folder)
        config = json.loads((folder / "config.json").read_text())
        by_config = estimate.shapes(config, family).parameters
        # biases, norms and learned positions weigh much in a model of some thousand weights
        assert 0.4 < by_config / counted <= 1.1
        assert estimate.shapes(config, family, counted).parameters == counted

    def test_a_config_that_names_no_sizes(self):
        with pytest.raises(UserError) as caught:
            estimate.shapes({"hidden_size": 8}, "there/config.json")
        assert str(caught.value) == (
            "there/config.json: names no num_hidden_layers, num_attention_heads, vocab_size: its time and memory cannot"
            " be estimated"
        )

    def test_a_file_that_is_cut(self, tmp_path):
        (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
        with pytest.raises(UserError, match=r"model.safetensors: not a safetensors file, or cut off"):
            estimate.counted_parameters(tmp_path)
        assert estimate.counted_parameters(tmp_path / "none") is None


class TestWorks:
    SIZES = estimate.shapes(LLAMA8B, "llama3")

    def works(self, one, names, **more):
        return {work.stage: work for work in estimate.works(one, names, self.SIZES, 2, **more)}

    def test_stages_are_those_that_run_the_model(self):
        assert list(self.works(*study(), made=True)) == [
            "organism", "prompts", "activations", "scores", "completions_harmful", "completions_harmless",
            "completions_borderline", "combination_scores", "loss",
        ]  # fmt: skip
        ranking = read_yaml(ROOT / "config/config.yaml")["ranking"] | {"mode": "conditional"}
        assert "conditional_scores" in self.works(*study(ranking=ranking))

    def test_a_taught_model_is_taught_first(self):
        found = self.works(*study("smollm2-refusing"), made=True)
        assert list(found)[:2] == ["lessons", "teach"]
        assert found["lessons"].decoded == (0.4 * 260 * 24, 260 * 24)
        assert found["teach"].logits == (3 * 100 * 8 * 24,) * 2

    def test_counts(self):
        one, names = study()
        found, counts = self.works(one, names), one.settings["prompts"]["counts"]
        answers = len(names) * counts["test"]
        assert found["completions_harmful"].logits == (answers, answers)
        assert found["completions_harmful"].decoded[1] == answers * 24
        assert found["combination_scores"].logits == ((2 * len(names) + 1) * counts["val"],) * 2
        assert found["prompts"].logits == (2 * (counts["train"] + counts["val"]),) * 2

    def test_loss_is_that_of_the_model_s_own_responses_too(self):
        loss = read_yaml(ROOT / "config/config.yaml")["loss"]
        whole, texts = (
            self.works(*study(loss=loss | {"on_distribution": one}))["loss"].tokens for one in (True, False)
        )
        one, names = study()
        per_prompt = (whole[1] - texts[1]) / (len(names) * one.settings["prompts"]["counts"]["test"])
        assert per_prompt == pytest.approx(estimate.tokens_of(Path(one.prompt_files["harmless_test"])) + 2 + 24)

    def test_a_full_sweep_is_all_candidates_of_all_layers(self):
        ranking = read_yaml(ROOT / "config/config.yaml")["ranking"] | {"sweep": "full"}
        full, screened = (
            self.works(*study(ranking=one))["scores"] for one in (ranking, ranking | {"sweep": "screened"})
        )
        assert full.logits == (3 * 2 * 32 * 32,) * 2
        assert screened.logits[0] < screened.logits[1] < full.logits[0]

    def test_more_combinations_are_more_of_what_concerns_them_alone(self):
        few, many = (self.works(*study(combinations=some)) for some in (["0"], ["singles", "pairs", "triples"]))
        for stage, work in many.items():
            grows = stage.startswith(("completions", "combination", "loss"))
            assert (work.tokens[1] > few[stage].tokens[1]) == grows


class TestSeconds:
    SIZES = Shapes(layers=2, width=10, inner=40, vocabulary=100, linear=10_000, parameters=12_000, keys_values=80)

    def test_arithmetic_and_memory(self):
        least, most = estimate.seconds(Work("a", (1e9, 1e9), (0, 0)), self.SIZES, "float32", GAUGE)
        computed = 2 * 1e9 * 10_000 / 1e11
        assert least == pytest.approx(2 + computed / 0.8, rel=1e-4)
        assert most == pytest.approx(6 + computed / 0.45, rel=1e-3)

    @given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**6))
    def test_more_work_takes_no_less(self, tokens, decoded, context):
        one = estimate.seconds(Work("a", (tokens,) * 2, (0, 0), (decoded,) * 2, context), self.SIZES, "float32", GAUGE)
        two = estimate.seconds(
            Work("a", (tokens + 1,) * 2, (1, 1), (decoded + 1,) * 2, context + 1), self.SIZES, "float32", GAUGE
        )
        assert one[0] <= one[1]
        assert one[0] <= two[0]
        assert one[1] <= two[1]

    def test_together(self):
        assert estimate.together([(1, 3), (3, 13)]) == (4, 8, 16)

    def test_rows_by_memory(self):
        one, names = study()
        rows = [estimate.decoding_rows(one, names, self.SIZES, "float32", memory) for memory in (0, 1e6, 1e12)]
        assert rows[0] == 1 < rows[1] < rows[2] == 512
