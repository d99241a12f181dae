/* What we need of libjpeg's binary interface, written down here so that no header package has to be installed.
 *
 * Facts of the ABI that libjpeg 6b, and libjpeg-turbo built with JPEG_LIB_VERSION 62 (as in Debian, Fedora and Pillow's
 * wheels), share: order and types of the members of three structures. Members that we never touch are there for their
 * place. jpeg_CreateDecompress refuses a caller whose version or sizeof differs; native/__init__.py then says so.
 */
#ifndef EFFNET_JPEG62_H
#define EFFNET_JPEG62_H
#include <stddef.h>
#include <stdint.h>

enum { JPEG_ABI = 62, JPEG_HEADER_OK = 1 };
enum { SPACE_GREY = 1, SPACE_RGB = 2, SPACE_YCC = 3, SPACE_RGBX = 7 }; /* J_COLOR_SPACE; RGBX is libjpeg-turbo's */

struct jpeg_decompress;

struct jpeg_errors { /* jpeg_error_mgr */
    void (*error_exit)(struct jpeg_decompress *);
    void (*emit_message)(struct jpeg_decompress *, int level);
    void (*output_message)(struct jpeg_decompress *);
    void (*format_message)(struct jpeg_decompress *, char *);
    void (*reset_error_mgr)(struct jpeg_decompress *);
    int msg_code;
    union { int i[8]; char s[80]; } msg_parm;
    int trace_level;
    long num_warnings;
    const char *const *message_table;
    int last_message;
    const char *const *addon_table;
    int first_addon, last_addon;
};

struct jpeg_source { /* jpeg_source_mgr */
    const uint8_t *next_input_byte;
    size_t bytes_in_buffer;
    void (*init_source)(struct jpeg_decompress *);
    int (*fill_input_buffer)(struct jpeg_decompress *);
    void (*skip_input_data)(struct jpeg_decompress *, long);
    int (*resync_to_restart)(struct jpeg_decompress *, int);
    void (*term_source)(struct jpeg_decompress *);
};

struct jpeg_decompress { /* jpeg_decompress_struct */
    struct jpeg_errors *err;
    void *mem, *progress, *client_data;
    int is_decompressor, global_state;
    struct jpeg_source *src;
    unsigned image_width, image_height;
    int num_components;
    int jpeg_color_space, out_color_space;
    unsigned scale_num, scale_denom;
    double output_gamma;
    int buffered_image, raw_data_out;
    int dct_method;
    int do_fancy_upsampling, do_block_smoothing;
    int quantize_colors, dither_mode, two_pass_quantize, desired_number_of_colors;
    int enable_1pass_quant, enable_external_quant, enable_2pass_quant;
    unsigned output_width, output_height;
    int out_color_components, output_components, rec_outbuf_height;
    int actual_number_of_colors;
    uint8_t **colormap;
    unsigned output_scanline;
    int input_scan_number;
    unsigned input_imcu_row;
    int output_scan_number;
    unsigned output_imcu_row;
    int (*coef_bits)[64];
    void *quant_tables[4], *dc_tables[4], *ac_tables[4];
    int data_precision;
    void *comp_info;
    int progressive_mode, arith_code;
    uint8_t arith_dc_l[16], arith_dc_u[16], arith_ac_k[16];
    unsigned restart_interval;
    int saw_jfif;
    uint8_t jfif_major, jfif_minor, density_unit;
    uint16_t x_density, y_density;
    int saw_adobe;
    uint8_t adobe_transform;
    int ccir601_sampling;
    void *marker_list;
    int max_h_samp_factor, max_v_samp_factor;
    int min_dct_size;
    unsigned total_imcu_rows;
    uint8_t *range_limit;
    int comps_in_scan;
    void *cur_comp_info[4];
    unsigned mcus_per_row, mcu_rows_in_scan;
    int blocks_in_mcu, mcu_membership[10];
    int ss, se, ah, al;
    int unread_marker;
    void *master, *main, *coef, *post, *inputctl, *marker, *entropy, *idct, *upsample, *cconvert, *cquantize;
};

struct jpeg_functions { /* in the order of jpeg.c: names */
    struct jpeg_errors *(*std_error)(struct jpeg_errors *);
    void (*create)(struct jpeg_decompress *, int version, size_t size);
    int (*read_header)(struct jpeg_decompress *, int require_image);
    int (*start)(struct jpeg_decompress *);
    void (*crop_scanline)(struct jpeg_decompress *, unsigned *left, unsigned *width);
    unsigned (*skip_scanlines)(struct jpeg_decompress *, unsigned lines);
    unsigned (*read_scanlines)(struct jpeg_decompress *, uint8_t **rows, unsigned lines);
    int (*resync_to_restart)(struct jpeg_decompress *, int);
    void (*destroy)(struct jpeg_decompress *);
};

#endif
