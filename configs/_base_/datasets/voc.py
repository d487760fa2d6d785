# PASCAL VOC 2012, for both stages: the 10,582 images of train_aug, tags from the field's cls_labels.npy.
# `python tools/converters/voc.py data/VOCdevkit/VOC2012` tells whether all of it is there, and makes train_aug.
data_root = 'data/VOCdevkit/VOC2012'
tag_file = data_root + '/cls_labels.npy'

voc_folders = dict(img_path='JPEGImages', seg_map_path='SegmentationClass')
dataset_train = dict(
    type='mmseg.PascalVOCDataset',
    data_root=data_root,
    data_prefix=voc_folders,
    ann_file='ImageSets/Segmentation/train.txt',
)
dataset_val = dict(dataset_train, ann_file='ImageSets/Segmentation/val.txt')
dataset_train_aug = dict(dataset_train, ann_file='ImageSets/Segmentation/trainaug.txt')
# VOC's own masks cover `train` alone. These are read only where tag_file=None makes tags of them.
dataset_aug_masks = dict(dataset_train_aug, data_prefix=dict(voc_folders, seg_map_path='SegmentationClassAug'))
