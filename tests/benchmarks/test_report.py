"""Tables and plots of results made by hand, whose numbers are known."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.measured import (
    bootstrap,
    interval_over_seeds,
    label_of,
    paired,
    per_user,
    read_results,
    write_ranks,
)
from benchmarks.report import main
from benchmarks.settings import read_settings, validated

USERS = 400


def summary(ranks):
    metrics = ("recall", "ndcg", "hit_rate", "mrr")
    return {
        f"{name}_at_{k}": float(per_user(ranks, f"{name}_at_{k}").mean())
        for name in metrics
        for k in (10, 20, 50)
    }


def drawn(seed, worst):
    """Ranks drawn evenly from 1 to `worst`."""
    return np.random.default_rng(seed).integers(1, worst + 1, size=(USERS, 1))


def write(folder, label, seed, worst, data="walks", ranks=None, **changes):
    """A result of drawn ranks, or of others."""
    model = label.split("-")[0]
    ranks = drawn(seed, worst) if ranks is None else ranks
    found = {
        "data": data,
        "model": model,
        "protocol": "leave_one_out",
        "seed": seed,
        "configuration": {"model": {"dimension": 8}, "training": {"seed": seed, "epochs": 3}},
        "data_fingerprint": "0" * 16,
        "items": 99,
        "training_targets": 1234,
        "examples": {"validation": USERS, "test": USERS},
        "parameters": 1000,
        "training_seconds": 20.0,
        "windows_per_second": 50.0,
        "peak_mib": 700,
        "curve": [] if model == "popularity" else [[10.0, 3.0, 0.1], [20.0, 2.0, 0.2 + seed / 10]],
        "id_weight": 0.5,
        "slices": {"head targets": {"examples": 7, **summary(ranks[:7])}},
        "validation": summary(ranks),
        "test": summary(ranks),
        "coverage": {"coverage_at_10": 0.25},
        "test_unfiltered": summary(ranks),
        "test_noise_0.1": summary(ranks + 1),
        "test_noise_0.3": summary(ranks + 3),
        **changes,
    }
    if model == "bivrec":
        found |= {"test_id_view": summary(ranks + 1), "test_mm_view": summary(ranks + 2)}
    name = f"{data}-{label}-{seed}"
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / f"{name}.json").write_text(json.dumps(found))
    parts = {"validation": ranks, "test": ranks}
    if "test_id_view" in found:
        parts["test_id_view"] = ranks + 1
    write_ranks(folder / "results" / f"{name}.json", parts)
    return found


def report(folder, *arguments):
    return CliRunner().invoke(
        main,
        ["--results", str(folder / "results"), "--output", str(folder / "out"), *arguments],
    )


def cells(text, first):
    """The cells of the first row that begins so."""
    row = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_interval_over_seeds_is_students():
    found = interval_over_seeds([0.10, 0.12, 0.14])
    # t(0.975, 2 degrees) is 4.303, and the standard error 0.02 / sqrt(3).
    assert found.mean == pytest.approx(0.12)
    assert found.high - found.mean == pytest.approx(4.303 * 0.02 / math.sqrt(3), rel=1e-3)
    assert found.text() == "0.1200 ± 0.0497"
    assert interval_over_seeds([0.1]).text() == "0.1000"
    # Of two the interval is twelve times as wide as they are apart.
    assert interval_over_seeds([0.1, 0.12]).text() == "0.1100"


def test_the_bootstrap_covers_a_known_difference():
    generator = np.random.default_rng(1)
    differences = generator.normal(0.05, 0.5, size=3000)
    found = bootstrap(differences, resamples=4000)
    error = differences.std() / math.sqrt(len(differences))
    assert found.mean == pytest.approx(differences.mean())
    assert found.low == pytest.approx(differences.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(differences.mean() + 1.96 * error, abs=0.1 * error)
    assert bootstrap(differences, resamples=4000) == found


def test_pairs_are_compared_user_by_user(tmp_path):
    # The same ranks, shifted by one: users differ far more than the two models do.
    differences = []
    for seed in (0, 1):
        ranks = drawn(seed, 90)
        write(tmp_path, "bivrec", seed, worst=90)
        write(tmp_path, "sasrec", seed, worst=90, ranks=ranks + 1)
        differences.append(per_user(ranks, "ndcg_at_20") - per_user(ranks + 1, "ndcg_at_20"))
    ((_, labels),) = read_results(tmp_path / "results").items()
    found = paired(labels["bivrec"], labels["sasrec"], "ndcg_at_20")
    assert found.mean == pytest.approx(np.mean(differences))
    assert 0 < found.low < found.mean < found.high
    unpaired = per_user(ranks, "ndcg_at_20").std() / math.sqrt(USERS)
    assert found.high - found.low < 4 * unpaired


def test_a_view_is_compared_with_its_model_alone(tmp_path):
    write(tmp_path, "bivrec", 0, worst=40)
    write(tmp_path, "pure_id", 0, worst=40)
    done = report(tmp_path, "--pair", "bivrec/id_view:pure_id", "--pair", "bivrec:pure_id")
    # The same ranks but for the view, which is one behind.
    with np.load(tmp_path / "results" / "ranks" / "walks-pure_id-0.npz") as stored:
        ranks = stored["test"].astype(int)
    expected = (per_user(ranks + 1, "ndcg_at_20") - per_user(ranks, "ndcg_at_20")).mean()
    rows = [line for line in done.output.splitlines() if "− pure_id | NDCG@20" in line]
    assert [row.split("|")[1].strip() for row in rows] == [
        "bivrec/id_view − pure_id",
        "bivrec − pure_id",
    ]
    assert float(rows[0].split("|")[3]) == pytest.approx(expected, abs=5e-5) and expected < 0
    assert float(rows[1].split("|")[3]) == 0.0


def test_the_report_has_the_numbers_of_the_results(tmp_path):
    bivrec = [write(tmp_path, "bivrec", seed, worst=30) for seed in (0, 1, 2)]
    for seed in (0, 1, 2):
        write(tmp_path, "sasrec", seed, worst=60)
    write(tmp_path, "popularity", 0, worst=90)
    write(tmp_path, "bivrec-wider", 0, worst=35)
    write(tmp_path, "sasrec", 0, worst=60, data="other")
    (tmp_path / "results" / "cold-start-walks-0.json").write_text('{"data": "walks", "seed": 0}')
    done = report(tmp_path, "--pair", "bivrec:sasrec")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out" / "walks-leave_one_out.md").read_text()
    assert text in done.output
    values = [found["test"]["recall_at_10"] for found in bivrec]
    assert cells(text, "bivrec")[1:3] == ["3", interval_over_seeds(values).text()]
    assert cells(text, "popularity")[1] == "1" and "±" not in cells(text, "popularity")[2]
    # Best known models in one order; what was changed stands in a table of its own.
    assert text.index("| popularity |") < text.index("| sasrec |") < text.index("| bivrec |")
    accuracy, others = text.split("### Other settings")
    assert "bivrec-wider" not in accuracy and "bivrec-wider" in others
    every = text.split("### Every metric")[1]
    values = [found["test"]["mrr_at_50"] for found in bivrec]
    assert cells(every, "MRR@50")[-1] == interval_over_seeds(values).text()
    assert cells(every, "Coverage@10")[1] == "0.2500"
    difference = cells(text, "bivrec − sasrec")
    assert difference[1] == "NDCG@10" and float(difference[2]) > 0
    for name in ("walks-leave_one_out-noise.png", "walks-leave_one_out-time.png"):
        assert f"({name})" in text
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert "insert" not in text
    assert (tmp_path / "out" / "other-leave_one_out.md").exists()


def test_a_module_is_compared_with_the_whole_of_the_same_seeds_on_both_splits(tmp_path):
    def settings(weight, **others):
        model = {"dimension": 8, **others}
        return {"model": model, "training": {"epochs": 3, "loss": {"semantic_weight": weight}}}

    for seed in (0, 1):
        write(tmp_path, "bivrec", seed, worst=30, configuration=settings(0.1))
    write(tmp_path, "bivrec-no_semantic", 1, worst=60, configuration=settings(0))
    # Not a module alone: it says nothing of one.
    write(tmp_path, "bivrec-narrow", 1, worst=60, configuration=settings(0, dimension=4))
    assert report(tmp_path, "--pair", "bivrec:bivrec").exit_code == 0
    text = (tmp_path / "out" / "walks-leave_one_out.md").read_text()
    modules, others = text.split("### Without a module")[1].split("### Other settings")
    assert "bivrec-narrow" not in modules and "bivrec-narrow" in others
    of_both = [per_user(drawn(1, worst), "ndcg_at_20").mean() for worst in (30, 60)]
    _, seeds, *validation, whole, changed, lost = cells(modules, "bivrec-no_semantic")
    assert seeds == "1"
    assert [float(whole), float(changed)] == pytest.approx(of_both, abs=5e-5)
    assert float(lost.split()[0]) == pytest.approx(of_both[0] - of_both[1], abs=1e-4)
    assert validation == [whole, changed, lost]


def test_models_of_every_data_set_stand_on_one_page_with_what_pairs_name(tmp_path):
    found = write(tmp_path, "bivrec", 0, worst=30)
    for label in ("sasrec", "sasrec-longer", "sasrec-shorter", "bivrec-tenth"):
        write(tmp_path, label, 0, worst=60, training_share=0.1 if label == "bivrec-tenth" else 1.0)
    write(tmp_path, "peer_sasrec", 0, worst=70, data="other")
    write(tmp_path, "bivrec-changed", 0, worst=30, data="third")
    pairs = ("--pair", "bivrec:sasrec-longer", "--pair", "bivrec:bivrec-tenth")
    assert report(tmp_path, *pairs).exit_code == 0
    text = (tmp_path / "out" / "README.md").read_text().split("## Pairs")[0]
    shown = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if "|" in line]
    expected = ["sasrec", "bivrec", "bivrec, id view", "bivrec, multimodal view", "sasrec-longer"]
    assert [name for name in shown if name and "-|" not in name] == ["peer_sasrec", *expected]
    assert "](walks-leave_one_out.md)" in text and "](other-leave_one_out.md)" in text
    assert cells(text, "bivrec")[2] == f"{found['test']['ndcg_at_10']:.4f}"
    view = cells(text, "bivrec, multimodal view")
    assert view[4] == f"{found['test_mm_view']['hit_rate_at_10']:.4f}"
    # What was named stands beside the models alone; what was not has a table of its own.
    page = (tmp_path / "out" / "walks-leave_one_out.md").read_text()
    others = page.split("### Other settings")[1]
    others = others.split("###")[0]
    assert "sasrec-shorter" in others and "sasrec-longer" not in others


def test_pairs_noise_and_the_seldom_seen_of_all_data_sets_stand_on_one_page(tmp_path):
    ranks = drawn(0, 30)
    seldom = {"targets never trained": {"examples": 5, **summary(ranks[:5])}}
    for data in ("walks", "other"):
        write(tmp_path, "bivrec", 0, 30, data=data, ranks=ranks, slices=seldom)
        write(tmp_path, "sasrec", 0, 30, data=data, ranks=ranks + 1)
    # Another seed, much worse, of which noise was not measured: it must not pass for the loss.
    for seed, drawn_ranks in enumerate((ranks, ranks + 9)):
        write(tmp_path, "sasrec", seed, 30, data="third", ranks=drawn_ranks)
    file = tmp_path / "results" / "third-sasrec-1.json"
    kept = {k: v for k, v in json.loads(file.read_text()).items() if "noise" not in k}
    file.write_text(json.dumps(kept))
    assert report(tmp_path, "--pair", "bivrec:sasrec").exit_code == 0
    text = (tmp_path / "out" / "README.md").read_text()
    pairs, rest = text.split("## Pairs")[1].split("## Random items")
    rows = [line for line in pairs.splitlines() if "bivrec − sasrec" in line]
    before, after = summary(ranks + 1)["ndcg_at_20"], summary(ranks)["ndcg_at_20"]
    assert [row.split("|")[2].strip() for row in rows] == ["other", "walks"]
    assert all(float(row.split("|")[3]) == pytest.approx(after - before, abs=5e-5) for row in rows)
    noise, few = rest.split("## Of which")
    # One place further down at 10 %, three at 30 %: see `write`.
    for name in ("other: bivrec", "third: sasrec"):
        seeds, *lost = cells(noise, name)[1:2] + cells(noise, name)[3:]
        assert seeds == "1"
        for share, cell in zip((1, 3), lost, strict=True):
            left = summary(ranks + share)["ndcg_at_20"]
            assert cell == f"{left:.4f} ({left / after - 1:+.0%})"
    of_cold = summary(ranks[:5])["ndcg_at_20"]
    assert cells(few, "walks: bivrec")[3] == f"{of_cold:.4f} (5)"
    assert "sasrec" not in few


def test_two_protocols_of_one_data_set_are_told_apart(tmp_path):
    for protocol in ("leave_one_out", "temporal"):
        for label in ("bivrec", "sasrec"):
            changes = {"protocol": protocol}
            name = f"{label}-{protocol}"
            write(tmp_path, name, 0, 30 if label == "bivrec" else 60, **changes)
    pairs = [
        ("bivrec-leave_one_out", "sasrec-leave_one_out"),
        ("bivrec-temporal", "sasrec-temporal"),
    ]
    assert report(tmp_path, *[a for p in pairs for a in ("--pair", ":".join(p))]).exit_code == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| walks, leave_one_out |" in text and "| walks, temporal |" in text


def test_runs_that_multiply_in_other_types_are_averaged_and_half_precision_is_not(tmp_path):
    def configuration(precision, softmax_dtype):
        loss = {"softmax_dtype": softmax_dtype, "softmax_chunk_rows": 512}
        return {"model": {"dimension": 8}, "training": {"precision": precision, "loss": loss}}

    write(tmp_path, "bivrec", 0, 30, configuration=configuration("bfloat16_products", "bfloat16"))
    write(tmp_path, "bivrec", 1, 30, configuration=configuration("auto", "auto"))
    assert report(tmp_path).exit_code == 0
    write(tmp_path, "bivrec", 2, 30, configuration=configuration("mixed_float16", "float32"))
    assert "differ in configuration" in report(tmp_path).output


def test_the_options_of_a_label_give_its_settings_again(tmp_path):
    changes = ("model.num_interests=1", "training.loss.semantic_weight=0")
    config, options = validated(read_settings("ml-1m", changes, "bivrec"), seed=3)
    configuration = {
        "model": config.model_dump(mode="json"),
        "training": options.model_dump(mode="json"),
    }
    more = {"data": "ml-1m", "configuration": configuration, "training_share": 0.1}
    write(tmp_path, "bivrec-changed", 3, 30, **more)
    write(tmp_path, "peer_sasrec", 0, 30, data="ml-1m", training_share=0.1)
    assert report(tmp_path).exit_code == 0
    text = (tmp_path / "out" / "ml-1m-leave_one_out.md").read_text()
    told = cells(text.split("### How each")[1], "bivrec-changed")[2].strip("`").split()
    given = [told[place + 1] for place, word in enumerate(told) if word == "--set"]
    assert "training.loss.semantic_weight=0.0" in given
    again = validated(read_settings("ml-1m", tuple(given), "bivrec"), seed=3)
    assert again == (config, options)
    rest = " ".join(word for word in told if word != "--set" and word not in given)
    assert rest == "--data ml-1m --model bivrec --share 0.1 --noise 0.1 --noise 0.3"
    assert "benchmarks/peers" in cells(text.split("### How each")[1], "peer_sasrec")[2]


def test_runs_of_other_content_are_not_averaged(tmp_path):
    write(tmp_path, "bivrec", 0, 30, content_fingerprint="a" * 16)
    # Of before it was noted: of whatever content.
    write(tmp_path, "bivrec", 1, 30)
    assert report(tmp_path).exit_code == 0
    write(tmp_path, "bivrec", 2, 30, content_fingerprint="b" * 16)
    assert "differ in configuration or data" in report(tmp_path).output


def test_seconds_are_those_of_every_seed_and_of_its_machine(tmp_path):
    machine = {"threads": 1, "multiplies_bfloat16": False, "gflops_float32": 90}
    write(tmp_path, "bivrec", 0, 30, training_seconds=1000.0, machine=machine)
    write(tmp_path, "bivrec", 1, 30, training_seconds=3000.0, machine={**machine, "threads": 2})
    write(tmp_path, "sasrec", 0, 30, machine=machine)
    write(tmp_path, "sasrec", 1, 30)
    cost = report(tmp_path).output.split("### Cost")[1]
    assert cells(cost, "bivrec")[3] == "1,000 3,000"
    assert cells(cost, "bivrec")[6] == "1/2 thread(s); float32; 90 GFLOP/s"
    # Not all of them say.
    assert cells(cost, "sasrec")[6] == ""


def test_what_runs_took_until_their_weights_were_saved_stands_beside_their_quality(tmp_path):
    runs = [
        write(tmp_path, "bivrec-short", seed, worst=30, saved_seconds=100.4 + seed)
        for seed in (0, 1)
    ]
    write(tmp_path, "bivrec-short", 2, worst=30)
    text = report(tmp_path).output
    qualities = [
        " ".join(f"{run[part]['ndcg_at_10']:.4f}" for run in runs)
        for part in ("validation", "test")
    ]
    row = cells(text.split("### From data ready")[1], "bivrec-short")
    assert row[1:5] == ["2 2", "100 101", *qualities]
    assert "--export FOLDER" in cells(text.split("### How each")[1], "bivrec-short")[2]
    (tmp_path / "nothing saved").mkdir()
    write(tmp_path / "nothing saved", "sasrec", 0, worst=30)
    assert "### From data ready" not in report(tmp_path / "nothing saved").output


def test_seconds_until_a_quality_are_of_the_first_epoch_that_reached_it(tmp_path):
    rising = [[10.0, 3.0, 0.1], [25.0, 2.0, 0.3], [40.0, 1.0, 0.2]]
    write(tmp_path, "bivrec", 0, worst=30, curve=rising)
    write(tmp_path, "bivrec", 1, worst=30, curve=rising[:1])
    write(tmp_path, "sasrec", 0, worst=30, curve=rising[:1])
    text = report(tmp_path, "--reach", "0.1", "--reach", "0.15").output
    assert cells(text.split("### Training until")[1], "bivrec")[1:] == ["10 10", "25 never"]
    assert cells(text.split("### Training until")[1], "sasrec")[1:] == ["10", "never"]
    assert "### Training until" not in report(tmp_path, "--reach", "0.5").output


def test_without_ranks_there_are_tables_and_no_pairs(tmp_path):
    write(tmp_path, "bivrec", 0, worst=30)
    write(tmp_path, "sasrec", 0, worst=30)
    for file in (tmp_path / "results" / "ranks").iterdir():
        file.unlink()
    done = report(tmp_path)
    assert done.exit_code == 0, done.output
    assert "Accuracy" in done.output and "Pairs" not in done.output


def test_changed_models_alone_stand_in_the_tables(tmp_path):
    found = write(tmp_path, "bivrec-old", 0, 40)
    result = report(tmp_path)
    assert result.exit_code == 0, result.output
    rows = [line for line in result.output.splitlines() if line.startswith("| bivrec-old | 1 |")]
    assert f"{found['test']['ndcg_at_10']:.4f}" in rows[0]
    assert "### Without a module" not in result.output


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(tmp_path):
    write(tmp_path, "bivrec", 0, worst=30)
    changed = {"model": {"dimension": 16}, "training": {"seed": 1, "epochs": 3}}
    write(tmp_path, "bivrec", 1, worst=30, configuration=changed)
    done = report(tmp_path)
    assert done.exit_code == 1
    assert "'bivrec' differ in configuration" in done.output
    assert not list((tmp_path / "out").glob("*.md"))


def test_a_setting_that_came_later_stands_at_its_default(tmp_path):
    write(tmp_path, "bivrec", 0, worst=30)
    later = {"model": {"dimension": 8}, "training": {"seed": 1, "epochs": 3, "content_prior": 0.0}}
    write(tmp_path, "bivrec", 1, worst=30, configuration=later)
    assert report(tmp_path).exit_code == 0
    later["training"]["content_prior"] = 10.0
    write(tmp_path, "bivrec", 1, worst=30, configuration=later)
    assert "differ in configuration" in report(tmp_path).output


def test_a_model_of_two_views_is_not_averaged_with_one_from_before_its_default_changed(tmp_path):
    for model, mixes in (("sasrec", True), ("bivrec", False)):
        views = ["id"] if mixes else ["id", "mm"]
        for seed, changed in ((0, {}), (1, {"multimodal_history": "content_and_id"})):
            settings = {"model": {"views": views, **changed}, "training": {"seed": seed}}
            write(tmp_path, model, seed, worst=30, configuration=settings)
        done = report(tmp_path)
        assert (done.exit_code == 0) == mixes, done.output


def test_settings_of_a_peer_are_its_own(tmp_path):
    for seed in (0, 1):
        settings = {"model": {"blocks": 2}, "training": {"history": 100, "seed": seed}}
        write(tmp_path, "rectools_sasrec", seed, worst=30, configuration=settings)
    assert report(tmp_path).exit_code == 0


def test_pairs_of_other_examples_are_refused(tmp_path):
    write(tmp_path, "bivrec", 0, worst=30)
    write(tmp_path, "sasrec", 0, worst=30, ranks=drawn(0, 30)[1:])
    done = report(tmp_path)
    assert done.exit_code == 1
    assert "ranked other examples" in done.output


def test_ranks_of_another_run_are_refused(tmp_path):
    write(tmp_path, "bivrec", 0, worst=60)
    write(tmp_path, "sasrec", 0, worst=30)
    kept = tmp_path / "results" / "ranks"
    (kept / "walks-bivrec-0.npz").rename(kept / "walks-sasrec-0.npz")
    write(tmp_path, "bivrec", 0, worst=60)
    done = report(tmp_path)
    assert done.exit_code == 1
    assert "walks-sasrec-0.npz: ranks of another run" in done.output


def test_pairs_want_results_and_the_ranks_of_every_run(tmp_path):
    for seed in (0, 1):
        write(tmp_path, "bivrec", seed, worst=30)
        write(tmp_path, "sasrec", seed, worst=30)
    done = report(tmp_path, "--pair", "bivrec:sasrek")
    assert done.exit_code == 2 and "bivrec:sasrek" in done.output
    assert "− sasrec" in report(tmp_path, "--pair", "bivrec:sasrec").output
    (tmp_path / "results" / "ranks" / "walks-sasrec-1.npz").unlink()
    assert "− sasrec" not in report(tmp_path, "--pair", "bivrec:sasrec").output


def test_nothing_to_report_says_so(tmp_path):
    (tmp_path / "results").mkdir()
    done = report(tmp_path)
    assert done.exit_code == 1
    assert "no results" in done.output


def test_a_label_is_what_stands_between_data_and_seed():
    found = {"data": "ml-1m", "seed": 3, "model": "bivrec"}
    assert label_of("ml-1m-bivrec-no_mm-3", found) == "bivrec-no_mm"
    assert label_of("ml-1m-3", found) == "bivrec"
    assert label_of("some-try", found) == "bivrec"


def test_shares_and_transfer_stand_in_a_table_of_their_own(tmp_path):
    full = write(tmp_path, "bivrec", 0, 50)
    tenth = write(tmp_path, "bivrec-tenth", 0, 90, training_share=0.1)
    moved = write(tmp_path, "bivrec-moved", 0, 70, training_share=0.1, warm_start="shop")
    other = write(tmp_path, "bivrec-tenth_plain", 0, 80, training_share=0.1)
    text = report(tmp_path).output
    table = text.split("### Shares of the data and transfer")[1].split("###")[0]
    rows = {
        cells[0]: cells[1:]
        for cells in (
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in table.strip().splitlines()
        )
    }
    assert rows["NDCG@20"] == ["10% of the users", "100% of the users"]
    value = {name: f"{found['test']['ndcg_at_20']:.4f}" for name, found in
             (("full", full), ("tenth", tenth), ("moved", moved), ("other", other))}  # fmt: skip
    assert rows["bivrec"] == [value["tenth"], value["full"]]
    assert rows["bivrec-tenth_plain"] == [value["other"], ""]
    assert rows["bivrec from shop"] == [value["moved"], ""]
    assert "bivrec-tenth" not in text.split("### Accuracy")[1].split("###")[0]
    assert "### Ablations" not in text
