"""French."""

from __future__ import annotations

MESSAGES: dict[str, str] = {
    # Unités, écrites après les nombres.
    "unit_pct": " %", "unit_share": " %", "unit_points": " points", "unit_change": " points",
    "unit_points_few": " point", "unit_change_few": " point", "unit_mb": " Mo",
    "unit_x": " \N{MULTIPLICATION SIGN}",
    "unit_ms": " ms", "unit_seconds": " s", "unit_count": "", "unit_number": "", "unit_p": "",
    # Titres et colonnes.
    "lead": "{model} sur {data} : {train} images d'entraînement, {test} images de test ; mesuré sur {device} "
    "(fils d'exécution : {threads}), le {date}.",
    "one_image": "Une image de test vaut {points}.",
    "adaptation_title": "Adaptation",
    "observations_title": "Constats",
    "comparison_title": "Comparaison",
    "choice_title": "Choix final",
    "references_title": "Parmi les résultats publiés sur les mêmes données",
    "sizes_title": "Choix selon la taille pour les petits appareils",
    "failures_title": "Cellules en échec",
    "conditions_title": "Conditions de mesure",
    "column_row": "ligne", "column_version": "variante", "column_top1": "top-1, %", "column_change": "écart, points",
    "column_zeros": "zéros, %", "column_file": "fichier, Mo", "column_smaller": "plus petit",
    "column_latency": "ms, lot de {batch}", "column_faster": "plus rapide",
    "column_throughput": "images/s, lot de {batch}", "column_energy": "J par image",
    "column_made": "secondes de préparation", "column_note": "remarque",
    "column_adaptation": "mode d'adaptation", "column_validation": "top-1 de validation, %", "column_time": "durée, s",
    "column_trained": "paramètres entraînés", "column_weights": "poids, Mo", "column_model": "modèle",
    "column_params": "paramètres, millions", "column_source": "référence", "column_room": "place du fichier, Mo",
    "column_loss": "dernière perte",
    "this_study": "cette étude : {name}", "measured_here": "mesuré ici, {images} images de test",
    "collapsed": "au hasard", "failed": "échec", "unavailable": "non disponible ici", "stopped": "arrêt : {reason}",
    "naive": "V1", "library": "V2",
    "at_batch": "lot de {batch}", "remark_seeds": "graines absentes de la moyenne : {n}",
    "remark_masks": "masques retirés : {mb}", "remark_spread": "entre graines : {points} d'amplitude",
    "loss_of": "Perte de {name}", "accuracy_of": "Exactitude de {name} sur les images de validation",
    "accuracy_seen_of": "Exactitude de {name} sur les images d'entraînement, vue en cours de route",
    "axis_epoch": "époque",
    "pictures": "Perte et exactitude au fil de l'entraînement en images, à côté de ce rapport : {files}.",
    "picture": "{name} : {path}",
    "axis_step": "part de l'entraînement, %", "axis_loss": "perte",
    "plot_size": "Exactitude selon la taille", "plot_latency": "Exactitude selon la latence",
    "plot_energy": "Exactitude selon l'énergie", "axis_size": "taille, Mo", "axis_latency": "latence, dense = 1",
    "axis_energy": "énergie d'une image, dense = 1", "axis_top1": "top-1, %",
    "plot_hint": "mieux vers le haut et la gauche ; en bleu : rien ne fait mieux ; sans V1 ni lignes au hasard",
    # Ce qui a été exécuté ou non.
    "incomplete": "Ce rapport est incomplet : certaines lignes n'ont pas encore été exécutées.",
    "contended": "D'autres processus occupaient la machine : les durées sont plus longues qu'au calme ; les rapports, "
    "mesurés tour à tour, sont plus sûrs.",
    "failed_cell": "{name} : {error}", "pair": "{label} : {value}",
    # L'adaptation.
    "base_only": "{name} est la base de toute la suite : c'est la seule adaptation qui a abouti.",
    "base_quicker": "{name} est la base de toute la suite : son exactitude de {top1} est à moins de {tolerance} de la "
    "meilleure ({best}), et c'est la plus rapide de celles-là ({seconds}).",
    "base_better": "{name} est la base de toute la suite : avec {top1}, c'est la seule à moins de {tolerance} de la "
    "meilleure, et elle vaut ses {seconds}.",
    "base_by_validation": "Les adaptations sont jugées sur des images prises à l'entraînement, jamais sur le test.",
    # Constats : chacun n'est écrit que si sa condition a été mesurée.
    "adaptation_times": "{quick} a pris {quick_s} et {slow} {slow_s}, soit {x} ; leurs exactitudes de test sont "
    "{quick_top1} et {slow_top1}.",
    "masks_double": "Avec ses masques, le fichier de {row} fait {mb}, {x} les {dense} du modèle dense ; sans eux il "
    "fait encore {removed} : des zéros seuls n'économisent rien.",
    "masks_grow": "Avec ses masques, le fichier de {row} fait {mb}, {x} les {dense} du modèle dense ; sans eux il fait "
    "{removed}.",
    "zeros_stored": "Enregistré sans ses zéros, {row} ({zeros} de zéros) prend {mb} au lieu de {dense}.",
    "zeros_no_faster": "Les zéros n'accélèrent rien : les lignes qui n'ont que des zéros ({n}) vont à {x} la "
    "vitesse du modèle dense (médiane), car les noyaux denses multiplient les zéros comme tout autre nombre.",
    "zeros_faster": "Les lignes qui n'ont que des zéros ({n}) sont plus rapides : {x} la vitesse du dense (médiane).",
    "sparsity_bearable": "Jusqu'à {zeros} de zéros ({row}), la perte reste dans la limite de {limit} : {change}.",
    "sparsity_too_much": "À partir de {zeros} de zéros ({row}), la perte la dépasse : {change}.",
    "improved": "{row} garde {top1} là où {before} avait {top1_before} : {points} de plus, avec un fichier de {mb}.",
    "no_better": "{row} ne fait pas mieux que {before} : {top1} contre {top1_before}.",
    "structured_pays": "{row} fait {macs} des calculs du modèle dense, va à {x} sa vitesse et {effect}.",
    "loses": "perd {points}", "gains": "gagne {points}",
    "structured_too_much": "Aucune ligne structurée ne reste à moins de {limit} du modèle dense ; la plus proche est "
    "{row}, qui perd {points}.",
    "int8_holds": "{n} sur {all} des lignes en int8 de cette bibliothèque restent à moins de {limit} du modèle dense ; "
    "{row} a le plus petit de leurs fichiers, {mb} ({x} plus petit).",
    "int8_breaks": "{row}, quantifié naïvement, perd {points}.",
    "eager_int8_slow": "{row} va à {x} la vitesse du modèle dense : quantifier les activations, multiplier et remettre "
    "à l'échelle sont des passages séparés en mémoire, sauf une fois compilés.",
    "eager_int8_weights_slow": "{row} va à {x} la vitesse du modèle dense : rendre ses poids int8 en flottants à "
    "chaque produit est un passage à part en mémoire, sauf une fois compilé.",
    "compiled_int8_fast": "Une fois compilé, {row} va à {x} la vitesse du modèle dense.",
    "dense_at_chance": "Le modèle adapté est lui-même au niveau du hasard ({top1} pour {classes} classes) : rien ne "
    "peut être dit de sa compression ; adaptez-le d'abord plus longtemps ou autrement.",
    "collapsed_row": "{row} est au niveau du hasard ({top1} pour {classes} classes) : ce nombre ne dit rien de la "
    "compression. {cause}",
    "cause_fresh-head": "Cause : le classifieur n'a jamais été entraîné pour ces classes. La bibliothèque refuse une "
    "tête étrangère aux données, et l'adapte d'abord.",
    "cause_wrong-normalisation": "Cause : des pixels de 0 à 255 sont entrés tels quels. La bibliothèque prend le "
    "prétraitement du processeur du modèle.",
    "cause_labels-out-of-step": "Cause : les étiquettes sont décalées d'une classe. La bibliothèque compare l'ordre "
    "des noms de classes à celui du modèle et refuse de continuer.",
    "cause_masked-pruning": "Cause : trop de poids retirés d'un coup, ceux du classifieur aussi, sans réparation.",
    "cause_dynamic-int8": "Cause : toutes les couches sont quantifiées, le classifieur aussi.",
    "cause_static": "Cause : une seule échelle par poids et par activation. La bibliothèque en prend une par canal et "
    "lisse les valeurs extrêmes.",
    "cause_steps": "La bibliothèque l'a signalé sur le moment (voir les remarques) : il faut une étape de récupération "
    "ou un taux moindre.",
    "cause_unknown": "Aucune étape n'a été vue y menant pendant la préparation ; une étape de récupération, ou un taux "
    "moindre, peut aider.",
    "damaged_row": "{row} perd {points} sans qu'aucun poids ait changé. {cause}",
    "within_noise": "L'écart au modèle dense ne dépasse pas ce que le hasard explique sur {images} images pour : "
    "{rows}.",
    "no_energy": "L'énergie n'a pas pu être mesurée ici (pas de compteur) et n'entre pas dans le choix.",
    "combination_smallest": "{row} combine plusieurs étapes, a le plus petit fichier de toutes les lignes à moins de "
    "{limit} : {mb} ({x} plus petit), et change l'exactitude de {change}.",
    # Le choix.
    "front": "Rien ne fait mieux que ces lignes en tout à la fois ({axes}) : {rows}.",
    "axis_name_accuracy": "exactitude",
    "axis_name_size": "taille", "axis_name_latency": "latence", "axis_name_energy": "énergie",
    "how_scored": "Les lignes sont classées par leur valeur en points d'exactitude : diviser la taille par deux compte "
    "{size}, la latence {latency}, l'énergie {energy}, et chaque point d'exactitude perdu {accuracy}.",
    "limits_kept": "Limites : {limits}. {refused} lignes sur {all} ne les tiennent pas.",
    "figure_top1": "top-1", "figure_top1_drop_pp": "perte de top-1", "figure_mcnemar_p": "p de l'écart",
    "figure_file_bytes": "fichier", "figure_file_without_masks_bytes": "fichier sans masques",
    "figure_size_x": "réduction du fichier", "figure_params": "paramètres", "figure_sparsity_pct": "zéros",
    "figure_macs": "multiplications-additions", "figure_latency_ms": "latence",
    "figure_latency_batch": "lot de la latence", "figure_dense_latency_ms": "latence du dense",
    "figure_speedup_x": "accélération", "figure_speedup_low_x": "accélération (borne basse)",
    "figure_speedup_high_x": "accélération (borne haute)", "figure_images_per_s": "images par seconde",
    "figure_throughput_batch": "lot du débit", "figure_dense_images_per_s": "images par seconde du dense",
    "figure_throughput_x": "gain de débit", "figure_j_per_image": "joules par image",
    "figure_energy_x": "économie d'énergie", "figure_made_s": "durée de préparation",
    "limit_max": "{name} d'au plus {value}", "limit_min": "{name} d'au moins {value}", "no_limits": "aucune",
    "naive_out": "Les lignes naïves (V1, {n} ici) sont là pour comparer et ne peuvent être choisies.",
    "pick": "Choix : {row}. Top-1 {top1} ({change} par rapport au dense), fichier de {mb} ({smaller} plus petit), "
    "{speed} la vitesse du dense ; valeur : {score}.",
    "pick_dense": "Choix : le modèle dense. Rien qui tienne les limites ne vaut plus sous ces priorités.",
    "pick_nothing": "Rien n'est choisi : aucune ligne n'a de résultats à comparer.",
    "pick_none": "Aucune ligne ne tient les limites : rien n'est choisi. Relâchez une limite ou baissez les taux.",
    "pick_at_chance": "Rien n'est choisi : le modèle adapté est lui-même au niveau du hasard ; il faut d'abord mieux "
    "l'adapter.",
    "flattered": "Il s'est fait parmi {all} lignes sur les {images} images de test qui le jugent aussi, ce qui "
    "flatte un peu son exactitude : jugez-le sur d'autres images avant de vous fier à des dixièmes de point.",
    "runner_up": "Second : {row}, valeur : {score} ; {reason}.",
    "reason_accuracy": "l'exactitude y change de {own}, et de {other} pour le choix",
    "reason_size": "son fichier fait {own}, celui du choix {other}",
    "reason_latency": "sa vitesse est de {own} celle du dense, celle du choix de {other}",
    "reason_energy": "il tire d'un joule {own} les images du dense, le choix {other}",
    "reason_equal": "les deux se valent presque",
    "unmeasured": "Le critère « {axis} » a un poids et n'a pas pu être mesuré ici.",
    # Références et tailles.
    "place_above": "Les {top1} du choix dépassent {above} des {all} résultats publiés : {names}.",
    "place_below_all": "Les {top1} du choix restent sous les {all} résultats publiés.",
    "place_caution": "Les résultats publiés portent sur des jeux de test entiers, pour des modèles adaptés avec toutes "
    "les images d'entraînement ; ici, {test} images de test et {train} d'entraînement ont servi.",
    "nothing_fits": "rien ne tient",
    "language_note": "Les messages de la bibliothèque sont cités tels quels.", "named_note": "{name} : {note}",
    "condition_versions": "logiciels", "condition_data": "données", "condition_model": "modèle",
    "condition_device": "appareil", "condition_date": "mesuré le", "condition_seeds": "graines",
    "device_words": "{device}, fils d'exécution : {threads}",
    "data_words": "{data} : {train} pour l'entraînement, {test} pour le test",
    "notes_title": "Remarques",
}  # fmt: skip
