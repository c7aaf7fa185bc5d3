"""Valid arguments for every public function: what the sweep starts from, and spoils one argument at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 2)
PARAMS = {"w": jnp.array([0.5, -1.0])}
INPUTS = jnp.array([[1.0, 2.0], [0.0, 1.0], [3.0, -1.0], [1.0, 1.0]])
TARGETS = jnp.array([1.0, 0.0, 2.0, -1.0])
BATCH = btl.Batch(INPUTS, TARGETS)
LOGITS, LABELS = jnp.zeros((4, 3)), jnp.array([0, 1, 2, 0])
PAIRS = np.array([0, 1, 1, 0])
SCORES = np.array([0.1, 0.4, 0.3, 0.2])
CLASSES = btl.likelihoods.categorical()


def _linear(params: Any, inputs: Any) -> Any:
    return inputs @ params["w"]


@dataclasses.dataclass(frozen=True)
class Case:
    """Valid arguments of one function.

    Attributes:
        arguments: by name; made when they are first needed, since some take a while.
        is_cheap: whether a call with these arguments is quick and succeeds, so that the deep sweep makes it too.
    """

    arguments: Callable[[], dict[str, Any]]
    is_cheap: bool = True


@cache
def shared() -> dict[str, Any]:
    """What most of the arguments are made of, by the name that arguments have."""
    net = btl.nets.from_function(_linear, PARAMS)
    prior = btl.gaussians.isotropic(PARAMS, 1.0)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=4)
    return {
        "key": KEY,
        "net": net,
        "prior": prior,
        "joint": joint,
        "params": PARAMS,
        "data": btl.data.arrays(INPUTS, TARGETS),
        "inference": btl.infer.map_estimate(joint, optax.sgd(0.1)),
        "posterior": btl.gaussians.isotropic(PARAMS, 0.5),
        "optimizer": optax.sgd(0.1),
        "predictive": btl.predict.Predictive(LOGITS[None], CLASSES, jnp.zeros(1)),
        "likelihood": CLASSES,
        "outputs": LOGITS,
        "outputs_shape": LOGITS,
        "targets": LABELS,
        "inputs": INPUTS,
        "mean": PARAMS,
        "gaussian": prior,
    }


def of(*names: str, cheap: bool = True, **others: Any) -> Case:
    """A case with arguments from :func:`shared`, and others."""
    return Case(lambda: {name: shared()[name] for name in names} | others, cheap)


def _draws() -> Any:
    return btl.Samples({"w": jnp.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0]])}, jnp.zeros(3))


def _chain() -> Any:
    draws = {"w": jnp.arange(20.0).reshape(10, 2)}
    return btl.posteriors.Chain(draws, jnp.zeros(10), PARAMS)


def _gaussian_outputs() -> Any:
    return btl.predict.GaussianOutputs(
        jnp.zeros((1, 4)), jnp.ones((1, 4, 1, 1)), btl.likelihoods.normal(1.0), jnp.zeros(1)
    )


def _two_gaussians() -> list[Any]:
    return [btl.gaussians.isotropic(PARAMS, 0.5), btl.gaussians.isotropic({"w": jnp.zeros(2)}, 1.0)]


def _acting(*names: str, policy: bool = False, **others: Any) -> Case:
    """A case whose network acts in an environment."""

    def arguments() -> dict[str, Any]:
        net = btl.nets.mlp(KEY, (4, 2))
        own = {"key": KEY, "net": net, "posterior": btl.Point(net.params)}
        chosen = {name: own[name] for name in names} | ({"policy": net} if policy else {})
        return chosen | {"env": btl.control.cartpole(), "likelihood": CLASSES} | others

    return Case(arguments, False)


def _rollouts() -> Any:
    return btl.control.rollouts(btl.nets.mlp(KEY, (4, 2)), btl.control.cartpole(), 1, 2, 0.9)


def _real_predictive() -> Any:
    return btl.predict.Predictive(jnp.zeros((1, 4)), btl.likelihoods.normal(1.0), jnp.zeros(1))


@cache
def _adapted() -> Any:
    return btl.nets.adapt(KEY, btl.nets.from_function(_linear, {"w": jnp.ones((2, 1))}), INPUTS, 1)


def _network() -> Any:
    return btl.layers.find(_linear, PARAMS, INPUTS)


run = partial(
    of, "key", "inference", "params", "data", cheap=False, steps=2, batch_size=2, chunk_size=1, progress=False
)
method = partial(of, "joint", "optimizer")
sampler = partial(of, "joint", num_samples=2, every=1)
curved = partial(
    of, "key", "joint", "params", "data", curvature=btl.curvature.dense(), kind=btl.curvature.ggn, batch_size=2
)
scored = partial(of, "predictive", "targets", weights=None)
backbone = partial(of, "key", cheap=False, num_classes=2, include_top=True, cut=None)
columns = partial(of, "key", "likelihood", "outputs", "targets")
checked = partial(of, "likelihood", "outputs_shape", "targets", mask=None)
featured = partial(of, features=np.asarray(INPUTS), targets=PAIRS)
labelled = partial(of, features=np.asarray(INPUTS), labels=PAIRS)
path = partial(of, cheap=False, path="a file")

TABLE: dict[str, Case] = {
    "LogJoint": of("net", "likelihood", "prior", num_data=4, kappa=1.0, temperature=1.0, allow_other_size=False),
    "EarlyStopping": of(evaluate=lambda posterior: 0.0, patience=2),
    "fit": run(epochs=None, transform=None, validate=None, every=None, callbacks=(), checkpoint=None, sharding=None),
    "fit_many": of(
        "params",
        "data",
        cheap=False,
        keys=KEYS,
        make_inference=lambda rate: btl.infer.map_estimate(shared()["joint"], optax.sgd(rate)),
        settings=jnp.array([0.1, 0.2]),
        steps=2,
        epochs=None,
        batch_size=2,
        transform=None,
        chunk_size=1,
        callbacks=(),
        checkpoint=None,
        progress=False,
        params_axis=None,
        data_axis=None,
    ),
    "estimate_memory": of("inference", "params", "data", cheap=False, batch_size=2, transform=None, chunk_size=1),
    "load": path(net=None),
    "save": path("posterior", net_state=(), settings=None),
    "sequentially": of(member=lambda x: x),
    "shard_params": of("params", cheap=False, mesh=None, axis="data"),
    "bridges.blackjax_log_density": of("joint", batch=BATCH),
    "bridges.numpyro_model": of("joint", like=None),
    "bridges.nuts": of(
        "key",
        "joint",
        "params",
        "data",
        cheap=False,
        num_warmup=2,
        num_samples=2,
        num_chains=1,
        target_accept_prob=0.8,
        max_tree_depth=2,
        dense_mass=False,
        progress=False,
    ),
    "bridges.svi": of("joint", "optimizer", "data", guide=lambda model: None, num_particles=1, cheap=False),
    "curvature.clipped_share": of("joint", "params", "data", batch_size=2),
    "curvature.dense": of(max_parameters=10),
    "curvature.empirical_fisher": columns(),
    "curvature.find_layers": of("joint", "params", "inputs"),
    "curvature.fisher": of(num_samples=2),
    "curvature.ggn": columns(),
    "curvature.kronecker": of(sharing=btl.curvature.expand, bias=btl.curvature.joined),
    "curvature.low_rank": of(rank=1, num_steps=None),
    "data.affine": of(
        rotation=0.0,
        width_shift=0.0,
        height_shift=0.0,
        shear=0.0,
        zoom=0.0,
        horizontal_flip=False,
        vertical_flip=False,
        fill_mode="nearest",
        fill_value=0.0,
    ),
    "data.arrays": of("inputs", "targets"),
    "data.color_jitter": of(brightness=0.0, contrast=0.0, saturation=0.0, maximum=255.0),
    "data.corrupt": of(name="contrast", severity=1, like="cifar10_c", maximum=1.0),
    "data.decode_picture": of(encoded=b"no picture", size=None, resample=None, cheap=False),
    "data.few_shot": of(labels=LABELS, num_per_class=1, seed=0, among=None, exclude=()),
    "data.folder": path(cache="a folder", root=None, skip_bad=False, gray_to_rgb=False),
    "data.label_shift": of(
        "key", labels=LABELS, class_weights=[1.0, 0.5, 0.5], concentration=None, num=3, replace=True
    ),
    "data.load": of(source=[1, 2], example=lambda x: (np.ones(2), x), num_threads=1),
    "data.normalize": of(mean=0.0, std=1.0, scale=1.0),
    "data.precompute": of("inputs", function=lambda x: x, batch_size=2),
    "data.random_crop": of(padding=1, size=None, fill_mode="constant", fill_value=0.0),
    "data.split": of(labels=LABELS, train_per_class=None, validation_per_class=0, seed=0, test=None),
    "data.stack": Case(lambda: {"members": [shared()["data"], shared()["data"]]}),
    "data.stream": of(
        source=[1, 2], example=lambda x: (np.ones(2), x), num_threads=1, num_workers=0, window_bytes=1000
    ),
    "data.text.coverage": of(texts=["a film"], words=["a"], split=str.split),
    "data.text.encode": Case(lambda: {"texts": ["a film"], "vocab": btl.data.text.vocabulary(["a film"]), "length": 2}),
    "data.text.from_records": of(records=[{"text": "a film", "label": 0}], text="text", label="label"),
    "data.text.read_labelled": path(encoding="utf-8"),
    "data.text.split_words": of(text="a film"),
    "data.text.tokenizer": path(),
    "data.text.vocabulary": of(texts=["a film"], split=str.split, min_count=1, max_size=None, extra=()),
    "data.tfds": of(name="mnist", split="train", data_dir=None, decoders=None, download=False, cheap=False),
    "diagnostics.by_chain": Case(lambda: {"posterior": _chain(), "function": None}),
    "diagnostics.ess": of(values=np.arange(20.0).reshape(2, 10)),
    "diagnostics.ess_tail": of(values=np.arange(20.0).reshape(2, 10)),
    "diagnostics.expected_targets": of("joint", "inputs"),
    "diagnostics.left_out": of(
        "key", "joint", "posterior", "data", kind=btl.curvature.ggn, num_steps=2, batch_size=2, cheap=False
    ),
    "diagnostics.log_importance_weights": Case(
        lambda: (
            {name: shared()[name] for name in ("joint", "posterior", "data")}
            | {"draws": _draws().draws, "batch_size": 2}
        )
    ),
    "diagnostics.psis": of(log_weights=np.zeros(30)),
    "diagnostics.psis_khat": of(log_weights=np.zeros(30)),
    "diagnostics.r_hat": of(values=np.arange(20.0).reshape(2, 10)),
    "diagnostics.report": of(
        "key",
        "joint",
        "posterior",
        "data",
        history=None,
        kind=None,
        num_samples=30,
        num_inputs=2,
        batch_size=2,
        cheap=False,
    ),
    "diagnostics.spread": of("key", "posterior", "prior", num_samples=2),
    "diagnostics.to_arviz": Case(lambda: {"posterior": _chain(), "function": None}, False),
    "diagnostics.widest_direction": of("gaussian", num_steps=2),
    "gaussians.by_path": Case(lambda: {"priors": {"**": shared()["prior"]}, "like": None}),
    "gaussians.dense": of("mean", covariance=jnp.eye(2)),
    "gaussians.diagonal": of("mean", diagonal=PARAMS | {"w": jnp.ones(2)}),
    "gaussians.from_diagonal_precision": of("mean", precision={"w": jnp.ones(2)}),
    "gaussians.from_kronecker_precision": of(
        "mean", precision=btl.gaussians.KroneckerPrecision((), {"w": jnp.ones(2)})
    ),
    "gaussians.isotropic": of("mean", scale=1.0),
    "gaussians.kl_divergence": Case(lambda: {"q": shared()["posterior"], "p": shared()["prior"]}),
    "gaussians.kronecker": of(mean={"w": jnp.ones((2, 1))}, rows={"w": jnp.eye(2)}, columns={"w": jnp.eye(1)}),
    "gaussians.load": path(like=None),
    "gaussians.low_rank": of("mean", diagonal=1.0, factor={"w": jnp.ones((1, 2))}),
    "gaussians.read_header": path(),
    "gaussians.save": path("gaussian", source_task="", convention="", notes=None),
    "infer.SampleWriter": of(directory="/tmp/no such folder of draws", resume=False),
    "infer.as_ensemble": of(result=None, cheap=False),
    "infer.condition": of("joint", "params", selection="w"),
    "infer.cosine_cycles": of(peak=0.1, cycle_length=2),
    "infer.cyclical_sghmc": of(
        "joint", learning_rate=0.1, cycle_length=4, num_samples=2, friction=0.1, exploration=0.5, every=1
    ),
    "infer.cyclical_sgld": of("joint", step_size=0.1, cycle_length=4, num_samples=2, exploration=0.5, every=1),
    "infer.ensemble": of(
        "key",
        "joint",
        "data",
        starts={"w": jnp.ones((2, 2))},
        method=lambda joint: btl.infer.map_estimate(joint, optax.sgd(0.1)),
        steps=2,
        batch_size=2,
        randomize=None,
        transform=None,
        chunk_size=1,
        checkpoint=None,
        progress=False,
        cheap=False,
    ),
    "infer.ivon": of("joint", learning_rate=0.1, momentum=0.9, hessian_decay=0.9, initial_hessian=1.0, num_samples=1),
    "infer.laplace": curved(selection=None),
    "infer.log_evidence": curved(),
    "infer.low_rank_vi": method(rank=1, num_samples=1, initial_scale=0.1, divergence=None, allow_weight_decay=False),
    "infer.map_estimate": method(allow_weight_decay=False),
    "infer.mean_field_vi": method(num_samples=1, initial_scale=0.1, divergence=None, allow_weight_decay=False),
    "infer.monte_carlo_kl": of(num_samples=2),
    "infer.prior_preconditioner": of("prior"),
    "infer.proximal_map": of("joint", learning_rate=0.1, momentum=0.0),
    "infer.read_samples": of(directory="a folder", like=PARAMS, rows=slice(None), cheap=False),
    "infer.scale_evidence": of("key", "joint", "params", "data", kind=btl.curvature.ggn, batch_size=2),
    "infer.sghmc": sampler(learning_rate=0.1, friction=0.1, start=0, preconditioner=None),
    "infer.sgld": sampler(step_size=0.1, start=0, preconditioner=None),
    "infer.swag": method(rank=1, start=0, every=1, eps=0.1, scale=1.0, allow_weight_decay=False),
    "layers.find": of("params", "inputs", network=_linear),
    "layers.gradients": Case(
        lambda: {"network": _network(), "inputs": INPUTS, "columns": lambda outputs: outputs[None]}
    ),
    "layers.replay": Case(lambda: {"network": _network(), "inputs": INPUTS, "replaced": None}),
    "likelihoods.check": checked(),
    "likelihoods.check_values": checked(),
    "likelihoods.class_weighted": of("likelihood", weights=jnp.ones(3)),
    "likelihoods.clipped_share": of("likelihood", "outputs", "targets"),
    "likelihoods.focal": of("likelihood", power=2.0),
    "likelihoods.from_function": of(fn=lambda outputs: None),
    "likelihoods.gaussian_noise": of("likelihood", "outputs"),
    "likelihoods.hessian_root": of("likelihood", "outputs", "targets"),
    "likelihoods.label_smoothed": of("likelihood", amount=0.1),
    "likelihoods.normal": of(scale=1.0),
    "likelihoods.target_check": of("likelihood", "outputs_shape"),
    "metrics.accuracy": scored(),
    "metrics.brier": scored(),
    "metrics.crps": scored(),
    "metrics.ece": scored(num_bins=3),
    "metrics.ece_equal_mass": scored(num_bins=2),
    "metrics.interval_coverage": scored(level=0.9),
    "metrics.macro_accuracy": scored(),
    "metrics.nll": scored(),
    "metrics.reliability_bins": scored(num_bins=3),
    "metrics.report": scored(),
    "metrics.rmse": scored(),
    "nets.adapt": of("key", "net", "inputs", rank=1, where=None, scale=1.0, trained=()),
    "nets.bag_of_words": of("key", num_rows=3, dimension=2, num_classes=2, hidden=(), activation=jnp.tanh),
    "nets.cast": of("net", dtype=jnp.float32),
    "nets.conv_net": of("key", input_shape=(8, 8, 1), channels=(2,), num_classes=2, activation=jnp.tanh),
    "nets.freeze": Case(lambda: {"net": btl.nets.mlp(KEY, (2, 2, 1)), "patterns": "head/**"}),
    "nets.from_equinox": of(module=None, state=None, axis_name="batch", cheap=False),
    "nets.from_function": of("params", function=_linear),
    "nets.from_keras": of(model=None, cheap=False),
    "nets.from_linen": of(module=None, variables={}, train=None, evaluate=None, streams=("dropout",), cheap=False),
    "nets.from_nnx": of(module=None, train=None, evaluate=None, cheap=False),
    "nets.frozen_state": of("net"),
    "nets.merge": Case(lambda: {"net": _adapted(), "params": _adapted().params}),
    "nets.mlp": of("key", sizes=(2, 2, 1), activation=jnp.tanh),
    "nets.reestimate_state": of("key", "net", "params", "data", batch_size=2),
    "nets.state_policy": of("net"),
    "nets.text_cnn": of("key", num_rows=3, dimension=2, num_classes=2, channels=1, widths=(1, 2), dropout=0.0),
    "nets.trained_state": of("net"),
    "nets.with_log_scale": of("net", initial_scale=1.0),
    "passes.batches": of("data", batch_size=2, sharding=None),
    "plots.history": of(result=None, ax=None, window=None, cheap=False),
    "plots.metric_against_n": of(ns=[1, 2], values={"a": [1.0, 2.0]}, ax=None, ylabel="", cheap=False),
    "plots.reliability": of(bins={}, ax=None, min_count=1, cheap=False),
    "posteriors.pooled": Case(lambda: {"chains": [_draws(), _draws()]}),
    "predict.from_probabilities": of(probs=jnp.full((4, 2), 0.5)),
    "predict.gaussian_noise": Case(lambda: {"outputs": _gaussian_outputs()}),
    "predict.joint_from_samples": Case(
        lambda: {"predictive": btl.predict.Predictive(jnp.zeros((2, 4)), btl.likelihoods.normal(1.0), jnp.zeros(2))}
    ),
    "predict.linearized": of("joint", "posterior", link=None, batch_size=None),
    "predict.linearized_joint": of("joint", "posterior", batch_size=None),
    "predict.mc_dropout": of("key", "joint", "params", num_samples=2, batch_size=None, sample_chunk=None),
    "predict.mean_field_0": Case(lambda: {"outputs": _gaussian_outputs()}, False),
    "predict.mean_field_1": Case(lambda: {"outputs": _gaussian_outputs()}, False),
    "predict.function_variance": Case(lambda: {"outputs": _gaussian_outputs()}, False),
    "predict.mean_field_2": Case(lambda: {"outputs": _gaussian_outputs()}, False),
    "predict.monte_carlo": of("key", "joint", "posterior", num_samples=2, batch_size=None, sample_chunk=None),
    "predict.monte_carlo_average": of("key", "joint", "posterior", num_samples=2, batch_size=None, sample_chunk=None),
    "predict.probit": Case(lambda: {"outputs": _gaussian_outputs()}, False),
    "predict.quadrature": Case(lambda: {"outputs": _gaussian_outputs(), "num_nodes": 2}, False),
    "predict.sampled": of("key", num_samples=2),
    "pretrained.bert": of("key", cheap=False, config={}, num_classes=2, cut=None, dtype=None),
    "pretrained.cifar_resnet20": backbone(),
    "pretrained.cifar_resnet56": backbone(),
    "pretrained.load": of("net", arrays={}, table=None, new=(), rename=None, strict=True, cheap=False),
    "pretrained.mobilenet": backbone(),
    "pretrained.read": of(source="a file", key=None, filename=None, revision=None, max_bytes=100, cheap=False),
    "pretrained.read_vectors": path(words=None, limit=None, errors="strict", max_bytes=100),
    "pretrained.resnet18": backbone(),
    "pretrained.resnet50": backbone(),
    "pretrained.vgg16": backbone(),
    "pretrained.vit_b16": backbone(image_size=32),
    "pretrained.vit_ti16": backbone(image_size=32),
    "sources.IterateCollector": of(keep=2, after=0),
    "sources.from_iterates": of(iterates={"w": jnp.arange(6.0).reshape(3, 2)}, rank=1, eps=0.1, covariance_scale=1.0),
    "sources.from_samples": Case(lambda: {"samples": _draws(), "eps": 0.1}),
    "sources.match": of(source=PARAMS, target=PARAMS, new=(), rename=None, rows=None, verbose=False),
    "sources.point": of("params", scale=1.0),
    "sources.word_vectors": of(
        "key",
        vectors=btl.pretrained.WordVectors(("a", "b"), np.eye(2, dtype=np.float32), "glove", "a file"),
        vocab=["", "a", "c"],
        scale=0.1,
        new_scale=None,
        path="table",
    ),
    "transferability.verdict": of(
        "key",
        log_predictive={"from scratch": np.zeros(4), "transfer": np.ones(4)},
        num_bootstrap=10,
        level=0.95,
        cheap=False,
    ),
    "transfer": of(
        "key",
        "net",
        "likelihood",
        source=PARAMS,
        train=BATCH,
        new=(),
        head=None,
        criterion=None,
        num_scales=2,
        steps=2,
        batch_size=None,
        learning_rate=None,
        keep=1,
        by_layer=False,
        progress=False,
        checkpoint=None,
        cheap=False,
    ),
    "control.advantage_weights": of(temperature=1.0, standardize=True),
    "control.critic": of("net", "inference", starts=[PARAMS]),
    "control.demonstrations": _acting("key", policy=True, num_episodes=1, max_steps=2),
    "control.first_returns": Case(
        lambda: {"key": KEY, "rollouts": _rollouts(), "policies": {"fresh": _rollouts().net.params}}, False
    ),
    "control.from_gymnax": of(env=None, params=None, cheap=False),
    "control.kl_prior": of("net", "params", "likelihood", observations=INPUTS, strength=1.0, cheap=False),
    "control.map_observations": Case(lambda: {"env": btl.control.cartpole(), "function": jnp.negative}),
    "control.on_policy": Case(
        lambda: (
            {"method": shared()["inference"], "rollouts": _rollouts()}
            | {"passes": 1, "minibatches": 1, "accumulate": True, "next_prior": None, "critic_first": False}
        )
    ),
    "control.returns": _acting("key", "posterior", "net", num_episodes=1, num_draws=1, max_steps=2),
    "control.rollouts": _acting("net", num_envs=1, num_steps=2, discount=0.9, weigh=None, critic=None, trace=1.0),
    "control.swap_actions": Case(lambda: {"env": btl.control.cartpole(), "order": (1, 0)}),
    "control.tune_by_returns": Case(
        lambda: (
            {"key": KEY, "make_inference": lambda setting: shared()["inference"], "settings": {"scale": np.ones(2)}}
            | {"params": _rollouts().net.params, "rollouts": _rollouts(), "num_rollouts": 3, "per_round": 1}
            | {"look": None}
        ),
        False,
    ),
    "control.vary": Case(lambda: {"env": btl.control.cartpole(), "gravity": 3.0}),
    "predict.acquisition.bald": of("predictive"),
    "predict.acquisition.batch_bald": of("key", "predictive", num=1, num_outcomes=10),
    "predict.acquisition.disagreement": of("predictive"),
    "predict.acquisition.epig": Case(lambda: {"pool": shared()["predictive"], "targets": shared()["predictive"]}),
    "predict.acquisition.variation_ratio": of("predictive"),
    "predict.calibrate.deviation_factor": of(mean=SCORES, deviation=SCORES, targets=SCORES),
    "predict.calibrate.dirichlet": of(probabilities=np.full((4, 2), 0.5), labels=PAIRS, penalty=0.1),
    "predict.calibrate.histogram": of(probabilities=np.full((4, 2), 0.5), labels=PAIRS, num_bins=2),
    "predict.calibrate.isotonic": of(probabilities=np.full((4, 2), 0.5), labels=PAIRS),
    "predict.calibrate.levels": of(transforms=np.full(4, 0.5)),
    "predict.calibrate.temperature": of(logits=np.asarray(INPUTS), labels=PAIRS),
    "predict.calibrate.vector": of(logits=np.asarray(INPUTS), labels=PAIRS),
    "predict.conformal.classes": of(
        "key", probabilities=np.full((4, 2), 0.5), labels=PAIRS, level=0.5, score=None, groups=None, weights=None
    ),
    "predict.conformal.intervals": of(
        predictions=SCORES, targets=SCORES, level=0.5, scale=None, groups=None, weights=None
    ),
    "predict.conformal.jackknife_plus": of(left_out=SCORES, targets=SCORES, level=0.5, folds=None),
    "predict.conformal.quantiles": of(low=SCORES, high=SCORES, targets=SCORES, level=0.5, groups=None, weights=None),
    "predict.conformal.regularized": of(penalty=0.1, free=1),
    "likelihoods.beta": of(concentration=2.0),
    "likelihoods.laplace": of(scale=2.0),
    "likelihoods.negative_binomial": of(concentration=2.0),
    "likelihoods.ordinal": of(cutpoints=[-1.0, 1.0]),
    "likelihoods.student_t": of(degrees=4.0, scale=2.0),
    "metrics.ece_classwise": scored(num_bins=3),
    "metrics.ece_smooth": scored(),
    "metrics.grouping_loss": of(confidence=SCORES, correct=PAIRS, regions=PAIRS, num_bins=2),
    "metrics.max_calibration_error": scored(num_bins=3),
    "metrics.pit": Case(lambda: {"predictive": _real_predictive(), "targets": TARGETS}),
    "metrics.quantile_calibration_error": Case(
        lambda: {"predictive": _real_predictive(), "targets": TARGETS, "weights": None, "num_levels": 3}
    ),
    "metrics.across_seeds": of(tables=[btl.metrics.ScoreTable((btl.metrics.Score("test", "nll", 1.0, 0.1),))] * 2),
    "metrics.compare": of(
        tables={
            name: [btl.metrics.ScoreTable((btl.metrics.Score("test", "nll", value, 0.1),)) for value in (1.0, 2.0, 4.0)]
            for name in ("a", "b")
        },
        baseline="a",
        metrics=None,
        larger_is_better=None,
        level=0.9,
    ),
    "metrics.evaluate": Case(
        lambda: (
            {"key": KEY, "predict": lambda inputs: shared()["predictive"], "data": {"test": BATCH}}
            | {"unknown_scores": None, "selective": False, "batch_size": 4, "num_bootstrap": 2}
        ),
        False,
    ),
    "metrics.augrc": of(confidence=SCORES, losses=SCORES),
    "metrics.aurc": of(confidence=SCORES, losses=SCORES),
    "metrics.auroc": of(scores_in=SCORES, scores_out=SCORES),
    "metrics.ause": of(uncertainty=SCORES, errors=SCORES),
    "metrics.average_precision": of(scores_in=SCORES, scores_out=SCORES),
    "metrics.bootstrap": of("key", statistic=np.mean, num_bootstrap=2, level=0.9),
    "metrics.coverage_at_risk": of(confidence=SCORES, losses=SCORES, risk=0.1),
    "metrics.energy": of(logits=np.asarray(INPUTS), temperature=1.0),
    "metrics.excess_aurc": of(confidence=SCORES, losses=SCORES),
    "metrics.false_positive_rate": of(scores_in=SCORES, scores_out=SCORES, true_positive_rate=0.95),
    "metrics.mahalanobis": of(features=np.asarray(INPUTS), labels=PAIRS, relative=False, shrinkage=0.1),
    "metrics.nearest_neighbours": of(features=np.asarray(INPUTS), num_neighbours=1, normalize=True),
    "metrics.risk_at_coverage": of(confidence=SCORES, losses=SCORES, coverage=0.5),
    "metrics.risk_coverage": of(confidence=SCORES, losses=SCORES),
    "gaussians.compress": of("gaussian", rank=1),
    "infer.chain_tasks": Case(
        lambda: (
            {name: shared()[name] for name in ("key", "net", "prior")}
            | {"likelihood": btl.likelihoods.normal(1.0), "tasks": [shared()["data"]]}
            | {"method": lambda joint: btl.infer.map_estimate(joint, optax.sgd(0.1)), "steps": 1, "batch_size": 2}
            | {"curvature": btl.curvature.dense(), "kind": btl.curvature.ggn, "rank": None, "forgetting": 1.0}
            | {"start": None, "transform": None, "progress": False}
        ),
        False,
    ),
    "infer.sticking_the_landing": of("prior", "key", q=btl.gaussians.isotropic(PARAMS, 0.5)),
    "plots.conflict": of(result=None, ax=None, cheap=False),
    "plots.pit": of(values={"a": SCORES}, ax=None, num_bins=2, cheap=False),
    "plots.prediction_sets": of(sets=np.ones((4, 3), bool), labels=np.array([0, 1, 2, 0]), ax=None, cheap=False),
    "plots.prior_against_posterior": of("prior", ax=None, posterior=btl.gaussians.isotropic(PARAMS, 0.5), cheap=False),
    "plots.risk_coverage": of(curves={}, ax=None, ylabel="", cheap=False),
    "plots.unknowns_histogram": of(
        scores_in=SCORES, scores_out={"a": SCORES}, ax=None, xlabel="", num_bins=2, cheap=False
    ),
    "plots.ranking": of(result=None, ax=None, cheap=False),
    "sources.extend": of("params", source=btl.gaussians.isotropic(PARAMS, 0.5), scale=1.0, new=()),
    "sources.fisher": of(
        "key",
        "net",
        "data",
        "params",
        likelihood=btl.likelihoods.normal(1.0),
        scale=1.0,
        strength=1.0,
        curvature=btl.curvature.dense(),
        kind=btl.curvature.ggn,
        batch_size=2,
    ),
    "sources.from_checkpoints": of(
        checkpoints=[PARAMS, {"w": jnp.array([1.0, 0.0])}], low_rank_share=0.5, covariance_scale=1.0, eps=0.1
    ),
    "sources.mixture": of(components=_two_gaussians(), weights=None),
    "sources.product": of(sources=_two_gaussians(), weights=None),
    "sources.student_t": of("gaussian", degrees=4.0, groups=None),
    "transferability.conflict": of("prior", "params", "posterior", layers=None),
    "transferability.evidence": featured(),
    "transferability.h_score": labelled(shrinkage=None),
    "transferability.held_out": featured(),
    "transferability.last_layer": featured(outputs=None, variances=(0.1, 1.0)),
    "transferability.leep": of(probabilities=np.full((4, 2), 0.5), labels=PAIRS),
    "transferability.log_me": featured(),
    "transferability.nce": of(probabilities=np.full((4, 2), 0.5), labels=PAIRS),
    "transferability.rank_correlation": of(
        "key", scores=[1.0, 2.0, 3.0], results=[0.1, 0.3, 0.2], groups=None, num_bootstrap=2, level=0.95
    ),
    "transferability.rank_sources": of(
        sources={"one": np.asarray(INPUTS)},
        targets=PAIRS,
        scores={"LogME": lambda source, targets: 0.0},
        most=4,
    ),
    "transferability.trans_rate": labelled(distortion=0.1),
    "tune.average": of(
        "key", log_predictive=np.zeros((2, 4)), log_prior=None, num_draws=2, num_iterations=2, prior_count=1.0
    ),
    "tune.closest_scales": of("prior", posterior=btl.gaussians.isotropic(PARAMS, 0.5)),
    "tune.conditional_evidence": of(groups=[-1, 0, 0, -1], curvature=None, batch_size=2),
    "tune.data_emphasized_elbo": method(num_samples=1, initial_scale=0.1, allow_weight_decay=False),
    "tune.edges": of(names=["a", "b"], scores=np.zeros((2, 3)), weights=np.ones((2, 3))),
    "tune.further_error": of(log_predictive=-np.ones((2, 4))),
    "tune.left_out_weights": of(
        "key", log_predictive=np.zeros((2, 4)), log_prior=None, num_draws=2, num_iterations=2, prior_count=1.0
    ),
    "tune.evidence": of(curvature=None, batch_size=2),
    "tune.grid": of(
        "params",
        "data",
        cheap=False,
        keys=KEYS,
        make_inference=lambda setting: btl.infer.map_estimate(shared()["joint"], optax.sgd(setting["rate"])),
        settings={"rate": np.array([0.1, 0.2])},
        score=lambda posterior, state, run: 0.0,
        steps=2,
        read_at=None,
        halving=1,
        batch_size=2,
        transform=None,
        params_axis=None,
        data_axis=None,
        vectorize=None,
        progress=False,
    ),
    "tune.groups_by_class": of(labels=PAIRS, num_groups=2),
    "tune.has_layer_scales": of("prior"),
    "tune.isotropic_family": of("mean", name="a family"),
    "tune.k_fold": of(groups=PAIRS),
    "tune.layer_scales": of(
        "key",
        "joint",
        "params",
        "data",
        cheap=False,
        criterion=btl.tune.leave_out(PAIRS),
        rounds=1,
        steps=1,
    ),
    "tune.leave_out": of(groups=PAIRS, most_steps=2, curvature=None, selection=None, batch_size=2),
    "tune.linear_model": of("joint", "params", batch=BATCH),
    "tune.mean_prior_variance": of("joint", "prior", "inputs"),
    "tune.noise_by_evidence": of("joint", "params", batch=BATCH),
    "tune.noise_variance": of("joint"),
    "tune.output_space": of("likelihood", "outputs", "targets", cheap=False),
    "tune.outputs_gram": of("joint", "prior", "params", "inputs"),
    "tune.path": of(
        "key",
        "joint",
        "data",
        families=[btl.tune.isotropic_family("decay", PARAMS)],
        log_scales=np.array([-1.0, 0.0]),
        criterion=btl.tune.validation(BATCH),
        steps=1,
        batch_size=2,
        learning_rate=0.1,
        learn=None,
        report=None,
        checkpoint=None,
        cheap=False,
    ),
    "tune.path_many": of(
        "joint",
        keys=jax.random.split(jax.random.key(0), 1),
        data=[BATCH],
        families=[[btl.tune.isotropic_family("decay", PARAMS)]],
        log_scales=[np.array([-1.0, 0.0])],
        criteria=[btl.tune.validation(BATCH)],
        steps=1,
        batch_size=2,
        learning_rate=0.1,
        learn=None,
        report=None,
        checkpoint=None,
        cheap=False,
    ),
    "tune.product": of(scale=[0.1, 1.0]),
    "tune.random_groups": of("key", num_examples=4, num_groups=2),
    "tune.remaining_gain": of("joint", "params", "data", iterations=2),
    "tune.scale_prior": of(log_scales=np.zeros((1, 2)), variances=np.ones(1), typical=1.0),
    "tune.scales_around": of(variances=np.ones(1), typical=1.0, num=2),
    "tune.validation": of("data"),
}
