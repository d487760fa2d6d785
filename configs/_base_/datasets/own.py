# Your own photographs, for both stages. This is the file to edit.
#
#   data/own/images/     photographs, in folders of any depth: .jpg .jpeg .png .bmp .tif .tiff .webp
#   data/own/tags.csv    which classes are in each, as tools/converters/tags.py writes it. An empty cell: none of them.
#                        Such photographs are needed where every other one has the same class.
#   data/own/masks/      true masks of some of them, if you have any, named as the photographs are: PNGs of class ids, 0
#                        the first of the classes below (background), 1 the next, …, 255 ignored. To measure with.
data_root = 'data/own'
tag_file = data_root + '/tags.csv'

# Background first; then the names that the tags have. Without 'background' every pixel belongs to a class, as on maps
# of land cover. Everything else follows from this line.
classes = ('background', 'cat', 'dog')
background = 'background' in classes

# Of images with more than 8 bits (16-bit PNG and TIFF, microscopes of 12 bits, numbers in float TIFF) the values that
# become black and white, such as (0, 4095). Training measures and tells what fits them.
value_range = None
load = [
    dict(type='LoadImageFromFile', color_type=6),  # the values of the file, whatever their depth
    dict(type='aream_mm.ToEightBits', value_range=value_range),
]

# What a person has corrected. true_masks: 'masks', or another folder beside it of such PNGs, to learn them: stage 2 in
# the place of pseudo masks, stage 1 as labels of the attention loss; stage 2 is not measured on them. left_out:
# data_root + '/left_out.txt', which tools/converters/reviewed.py writes, to leave bad masks out of stage 2.
true_masks = None
left_out = None

photographs = dict(
    type='aream_mm.PhotographDataset',
    metainfo=dict(classes=classes),
    data_root=data_root,
    data_prefix=dict(img_path='images', seg_map_path='masks'),
)
corrected = photographs
if true_masks:
    corrected = dict(photographs, data_prefix=dict(img_path='images', seg_map_path=true_masks))
