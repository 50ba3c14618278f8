"""English."""

from __future__ import annotations

MESSAGES: dict[str, str] = {
    # Units, written behind figures in sentences.
    "unit_pct": " %", "unit_share": " %", "unit_points": " points", "unit_change": " points",
    "unit_points_few": " points", "unit_change_few": " points", "unit_mb": " MB",
    "unit_x": "\N{MULTIPLICATION SIGN}",
    "unit_ms": " ms", "unit_seconds": " s", "unit_count": "", "unit_number": "", "unit_p": "",
    # Headings and columns.
    "lead": "{model} on {data}: {train} training images, {test} test images; measured on {device} (threads: "
    "{threads}), {date}.",
    "one_image": "One test image is worth {points}.",
    "adaptation_title": "Adaptation",
    "observations_title": "Observations",
    "comparison_title": "Comparison",
    "choice_title": "Final choice",
    "references_title": "Among published figures for the same data",
    "sizes_title": "Choice by size for small devices",
    "failures_title": "Cells that failed",
    "conditions_title": "Conditions",
    "column_row": "row", "column_version": "version", "column_top1": "top-1 %", "column_change": "change, points",
    "column_zeros": "zeros %", "column_file": "file MB", "column_smaller": "smaller",
    "column_latency": "ms, batch {batch}", "column_faster": "faster", "column_throughput": "images/s, batch {batch}",
    "column_energy": "J/image", "column_made": "seconds to make", "column_note": "remark",
    "column_adaptation": "adaptation", "column_validation": "validation top-1 %", "column_time": "time, s",
    "column_trained": "trained parameters", "column_weights": "weights MB", "column_model": "model",
    "column_params": "parameters, millions", "column_source": "source", "column_room": "room for the file, MB",
    "column_loss": "last loss",
    "this_study": "this study: {name}", "measured_here": "measured here, {images} test images",
    "collapsed": "at chance", "failed": "failed", "unavailable": "not available here", "stopped": "stopped: {reason}",
    "naive": "V1", "library": "V2",
    "at_batch": "batch {batch}", "remark_seeds": "seeds missing from the mean: {n}",
    "remark_masks": "masks removed: {mb}", "remark_spread": "over seeds: {points} between highest and lowest",
    "loss_of": "Loss of {name}", "accuracy_of": "Accuracy of {name} on validation images",
    "accuracy_seen_of": "Accuracy of {name} on training images, as seen while training", "axis_epoch": "epoch",
    "pictures": "Loss and accuracy over training as pictures, beside this report: {files}.",
    "picture": "{name}: {path}",
    "axis_step": "part of the training, %", "axis_loss": "loss",
    "plot_size": "Accuracy against size", "plot_latency": "Accuracy against latency",
    "plot_energy": "Accuracy against energy", "axis_size": "size, MB", "axis_latency": "latency, dense = 1",
    "axis_energy": "energy of an image, dense = 1", "axis_top1": "top-1, %",
    "plot_hint": "up and to the left is better; blue: nothing beats it; V1 and rows at chance are left out",
    # What was and was not run.
    "incomplete": "This report is not complete: some rows have not been run yet.",
    "contended": "Other processes used the machine meanwhile: times are higher than on a quiet machine; ratios, "
    "measured in turns, hold better.",
    "failed_cell": "{name}: {error}", "pair": "{label}: {value}",
    # The adaptation.
    "base_only": "{name} is the base of everything that follows: the only adaptation that ran.",
    "base_quicker": "{name} is the base of everything that follows: its accuracy of {top1} is within {tolerance} of "
    "the best ({best}), and of those it took the least time ({seconds}).",
    "base_better": "{name} is the base of everything that follows: at {top1} it is the only one within {tolerance} of "
    "the best, and worth its {seconds}.",
    "base_by_validation": "Adaptations are judged by images cut from the training images, never by test images.",
    # Observations: each is written where its condition was measured.
    "adaptation_times": "{quick} took {quick_s} and {slow} {slow_s}, {x} as long; their test accuracies are "
    "{quick_top1} and {slow_top1}.",
    "masks_double": "With its masks left in, the file of {row} has {mb}, {x} the dense {dense}; with them removed it "
    "still has {removed}: zeros alone save nothing.",
    "masks_grow": "With its masks left in, the file of {row} has {mb}, {x} the dense {dense}; with them removed it has "
    "{removed}.",
    "zeros_stored": "Stored without its zeros, {row} ({zeros} zeros) takes {mb} instead of {dense}.",
    "zeros_no_faster": "Zeros bring no speed-up: rows with zeros alone ({n}) run at {x} the dense speed (median), "
    "because dense kernels multiply zeros like any other number.",
    "zeros_faster": "Rows with zeros alone ({n}) are faster: {x} the dense speed (median).",
    "sparsity_bearable": "Up to {zeros} zeros ({row}) the loss stays within {limit}: {change}.",
    "sparsity_too_much": "From {zeros} zeros on ({row}) the loss is larger: {change}.",
    "improved": "{row} keeps {top1} where {before} had {top1_before}: {points} more, with a file of {mb}.",
    "no_better": "{row} is no better than {before}: {top1} against {top1_before}.",
    "structured_pays": "{row} does {macs} of the dense arithmetic, runs {x} as fast and {effect}.",
    "loses": "loses {points}", "gains": "gains {points}",
    "structured_too_much": "No structured row stays within {limit} of the dense model; the closest is {row}, which "
    "loses {points}.",
    "int8_holds": "{n} of {all} rows with int8 weights that this library made stay within {limit} of the dense model; "
    "{row} has the smallest file of them, {mb} ({x} smaller).",
    "int8_breaks": "{row}, quantized the naive way, loses {points}.",
    "eager_int8_slow": "{row} runs at {x} the dense speed: quantizing activations, multiplying and scaling are "
    "separate passes over memory unless they are compiled.",
    "eager_int8_weights_slow": "{row} runs at {x} the dense speed: turning its int8 weights into floats for each "
    "product is a pass over memory of its own unless it is compiled.",
    "compiled_int8_fast": "Compiled, {row} runs {x} as fast as the dense model.",
    "dense_at_chance": "The adapted model itself is at chance ({top1} with {classes} classes), so nothing can be said "
    "of compressing it: adapt it longer or another way first.",
    "collapsed_row": "{row} is at chance ({top1} with {classes} classes): the figure says nothing about compression. "
    "{cause}",
    "cause_fresh-head": "Cause: the classifier was never trained for these classes. The library refuses a head that "
    "does not belong to the data, and adapts it first.",
    "cause_wrong-normalisation": "Cause: pixels from 0 to 255 went in as they are. The library takes preprocessing "
    "from the model's own processor.",
    "cause_labels-out-of-step": "Cause: labels are one class out of step. The library compares the order of class "
    "names with the model's and refuses to go on.",
    "cause_masked-pruning": "Cause: too many weights were removed at once, the classifier's too, and nothing was "
    "repaired.",
    "cause_dynamic-int8": "Cause: every layer was quantized, the classifier too.",
    "cause_static": "Cause: one scale for each whole weight and activation. The library uses a scale for each channel "
    "and smooths outliers.",
    "cause_steps": "The library warned of it when it happened (see the notes): a recover step, or a lower ratio, is "
    "needed.",
    "cause_unknown": "No step was seen to bring it there while it was made; a recover step, or a lower ratio, may "
    "help.",
    "damaged_row": "{row} loses {points} without a change of a single weight. {cause}",
    "within_noise": "The difference from the dense model is no more than chance explains on {images} images for: "
    "{rows}.",
    "no_energy": "Energy could not be measured here (no counter of the device), and plays no part in the choice.",
    "combination_smallest": "{row} combines several steps, has the smallest file of all rows within {limit}: {mb} "
    "({x} smaller), and changes accuracy by {change}.",
    # The choice.
    "front": "Nothing beats these rows in everything at once ({axes}): {rows}.",
    "axis_name_accuracy": "accuracy",
    "axis_name_size": "size", "axis_name_latency": "latency", "axis_name_energy": "energy",
    "how_scored": "Rows are ranked by their worth in points of accuracy: each halving of size counts {size}, of "
    "latency {latency}, of energy {energy}, and each point of accuracy lost {accuracy}.",
    "limits_kept": "Limits: {limits}. {refused} of {all} rows break them.",
    "figure_top1": "top-1", "figure_top1_drop_pp": "loss of top-1", "figure_mcnemar_p": "p of the difference",
    "figure_file_bytes": "file", "figure_file_without_masks_bytes": "file without masks",
    "figure_size_x": "shrinking of the file", "figure_params": "parameters", "figure_sparsity_pct": "zeros",
    "figure_macs": "multiply-accumulates", "figure_latency_ms": "latency",
    "figure_latency_batch": "batch of the latency", "figure_dense_latency_ms": "dense latency",
    "figure_speedup_x": "speed-up", "figure_speedup_low_x": "speed-up (lower end)",
    "figure_speedup_high_x": "speed-up (upper end)", "figure_images_per_s": "images/s",
    "figure_throughput_batch": "batch of the throughput", "figure_dense_images_per_s": "dense images/s",
    "figure_throughput_x": "gain of throughput", "figure_j_per_image": "joules of an image",
    "figure_energy_x": "saving of energy", "figure_made_s": "time to make",
    "limit_max": "{name} at most {value}", "limit_min": "{name} at least {value}", "no_limits": "none",
    "naive_out": "Naive rows (V1, {n} here) are shown for comparison and cannot be chosen.",
    "pick": "Pick: {row}. Top-1 {top1} ({change} against dense), file {mb} ({smaller} smaller), {speed} the dense "
    "speed; worth {score}.",
    "pick_dense": "Pick: the dense model. Nothing that keeps the limits is worth more under these priorities.",
    "pick_nothing": "Nothing is chosen: no row has figures to compare.",
    "pick_none": "No row keeps the limits: nothing is chosen. Loosen a limit, or try milder strengths.",
    "pick_at_chance": "Nothing is chosen: the adapted model itself is at chance, and has to be adapted better first.",
    "flattered": "It was chosen among {all} rows on the {images} test images that also judge it, which flatters "
    "its accuracy a little: judge it on images that chose nothing before tenths of a point matter.",
    "runner_up": "Runner-up: {row}, worth {score}; {reason}.",
    "reason_accuracy": "it changes accuracy by {own} where the pick has {other}",
    "reason_size": "its file has {own} where the pick has {other}",
    "reason_latency": "it runs at {own} the dense speed where the pick has {other}",
    "reason_energy": "it draws {own} the dense model's images from a joule where the pick draws {other}",
    "reason_equal": "the two are nearly equal",
    "unmeasured": "{axis} has a weight and could not be measured here.",
    # References and sizes.
    "place_above": "The pick's {top1} stands above {above} of {all} published figures: {names}.",
    "place_below_all": "The pick's {top1} stands below all {all} published figures.",
    "place_caution": "Published figures are on whole test sets, of models adapted with all training images; here "
    "{test} test images and {train} training images were used.",
    "nothing_fits": "no row fits",
    "language_note": "Messages of the library are quoted as they were raised.", "named_note": "{name}: {note}",
    "condition_versions": "software", "condition_data": "images", "condition_model": "model",
    "condition_device": "device", "condition_date": "measured", "condition_seeds": "seeds",
    "device_words": "{device}, threads: {threads}", "data_words": "{data}: {train} for training, {test} for testing",
    "notes_title": "Notes",
}  # fmt: skip
