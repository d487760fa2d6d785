# PASCAL VOC 2012 for stage 2: the train_aug images with the pseudo masks of stage 1, measured on the masks of `val`.
# The masks of `test` are the evaluation server's. Its images, written for `tools/converters/voc_submission.py`:
#
#   python tools/test.py CONFIG CHECKPOINT --tta --out predictions --cfg-options test_evaluator.format_only=True \
#       test_dataloader.dataset.dataset.ann_file=ImageSets/Segmentation/test.txt
#
# Predictions refined by a dense CRF, with or without --tta, and the masks of the training images, kept to their tags:
#
#   python tools/test.py CONFIG CHECKPOINT --pseudo-masks --cfg-options model.test_cfg.refine.type=aream_mm.DenseCRF \
#       model.test_cfg.refine.bilateral_sxy=67
_base_ = ['voc.py', 'pseudo.py']
mask_dir = 'work_dirs/aream_vit_voc/pseudo_masks'
train_dataloader = dict(dataset=dict(dataset=_base_.dataset_train_aug, mask_dir=mask_dir, tag_file=_base_.tag_file))
val_dataloader = dict(dataset=dict(dataset=_base_.dataset_val))
test_dataloader = val_dataloader
pseudo_mask_dataloader = dict(dataset=dict(dataset=_base_.dataset_train_aug, tag_file=_base_.tag_file))
