# The paper's table on PASCAL VOC 2012 (arXiv 2305.03112): five ways to make seeds, what refiners make of them, and what
# decoders learn of that.
#
#   python tools/experiment.py configs/experiment_voc.py --estimate
#   python tools/experiment.py configs/experiment_voc.py --gpus 4 --cfg-options data_root=… \
#       decoders.LargeFOV-ResNet38.model.backbone.pretrained=res38_cls.pth
#
# The first command says what all of it takes, and needs neither data nor weights. The second one goes on where it was
# when it is given again. Three seeds: --seeds 0 1 2.
#
# Each of `rows` is a config and what differs from it, and so is `affinity` and each of `decoders`. In steps: train;
# measure the seeds on `train`, where their best background score is chosen; write masks of train_aug at this score by
# each of `refiners`, for PSA after an AffinityNet has been trained on masks with `band`; train each decoder on the
# masks of the refiner `stage_2_masks`; measure it on `val`, once. Stage 1 goes on with its best checkpoint where its
# config keeps one, and runs without the hooks that write masks and affinity profiles; stage 2 goes on with its last
# checkpoint, and runs without validations.
#
# Expect: `paper` in each row is what the paper reports for the seeds. This config has not been measured yet.
data_root = 'data/VOCdevkit/VOC2012'
seeds = (0,)
rows = {
    'MCTformer-V2': dict(config='{{ fileDirname }}/mctformer_voc.py', paper=61.7),
    'AReAM, uniform': dict(config='{{ fileDirname }}/aream_vit_voc.py', paper=67.93),
    'AReAM, entropy': dict(config='{{ fileDirname }}/aream_vit_entropy_voc.py', paper=67.73),
    'TransCAM': dict(config='{{ fileDirname }}/transcam_voc.py'),
    'AReAM-Conformer': dict(config='{{ fileDirname }}/aream_conformer_voc.py', paper=70.69),
}
refiners = {  # test settings of stage 1; None: the masks of the CAMs themselves
    'none': None,
    'PAR': dict(refine=dict(type='aream_mm.PAR')),
    'CRF': dict(refine=dict(type='aream_mm.DenseCRF', label_confidence=0.7)),
    # `net` and `checkpoint` are those of `affinity`, trained on the masks of the same row and seed.
    'PSA': dict(refine=dict(type='aream_mm.RandomWalk'), refine_scale=1),
}
affinity = dict(config='{{ fileDirname }}/affinity_net_voc.py')
band = dict(refine=dict(type='aream_mm.PAR'), band=(0.35, 0.55))
stage_2_masks = 'PSA'
decoders = {
    'LargeFOV-ResNet38': dict(config='{{ fileDirname }}/seg/largefov_resnet38_voc.py'),
    'DeepLabV3+': dict(config='{{ fileDirname }}/seg/deeplabv3plus_r101_voc.py'),
}
tta = False
# For the estimate where the data is not there: photographs in the lists, and width and height of most of them.
images = dict(trainaug=10582, train=1464, val=1449)
image_size = (500, 375)
